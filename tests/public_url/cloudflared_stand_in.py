"""Stands in for the program `cloudflared`: knows its arguments, prints what it prints, forwards.

The variable STAND_IN names a folder. `plan.json` in it holds, for each run, what to do step by step
(the last run's steps are those of all later ones):

- `["says", line]`, `["prints", line]`: to stderr, to stdout
- `["until", name]`: waits for that file in the folder
- `["leads"]`: forwards connections to `--url`; the port is in the file `port-N`
- `["deaf"]`: only counts SIGTERM from now on, as the size of the file `terms`
- `["ends", status]`: ends; without it, it stays until a signal

Each run writes `run-N.json` when it starts: process id, arguments and environment.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

FOLDER = Path(os.environ["STAND_IN"])
TUNNEL_FLAGS = {"--no-autoupdate": 0, "--loglevel": 1, "--config": 1, "--url": 1}
TUNNEL_FLAGS |= {"--no-tls-verify": 0, "--output": 1}
RUN_FLAGS = {"--url": 1, "--no-tls-verify": 0, "--token": 1}


def main() -> None:
    number = announce()
    options, tunnel = understood(sys.argv[1:])
    checked(options, tunnel)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    plan = json.loads((FOLDER / "plan.json").read_text())
    for verb, *arguments in plan[min(number, len(plan) - 1)]:
        perform(number, verb, arguments, options)
    while True:
        time.sleep(60)


def announce() -> int:
    number = len(list(FOLDER.glob("run-*.json")))
    run = {"pid": os.getpid(), "arguments": sys.argv[1:], "environment": dict(os.environ)}
    unfinished = FOLDER / f"unfinished-{number}"
    unfinished.write_text(json.dumps(run))
    unfinished.rename(FOLDER / f"run-{number}.json")
    return number


def understood(arguments: list[str]) -> tuple[dict[str, str], str | None]:
    """The options, and the tunnel that is run: None for a quick one, empty when it has no name."""
    if not arguments or arguments.pop(0) != "tunnel":
        refuse("there is but one command that we need")
    options = take_options(arguments, TUNNEL_FLAGS)
    if not arguments:
        return options, None
    if arguments.pop(0) != "run":
        refuse("there is but one subcommand that we need")
    options |= take_options(arguments, RUN_FLAGS)
    if len(arguments) > 1:
        refuse('"cloudflared tunnel run" accepts only one argument')
    return options, "".join(arguments)


def take_options(arguments: list[str], known: dict[str, int]) -> dict[str, str]:
    found = {}
    while arguments and arguments[0].startswith("-"):
        name = arguments.pop(0)
        if name not in known:
            refuse(f"flag provided but not defined: {name[1:]}")
        found[name] = arguments.pop(0) if known[name] else ""
    return found


def checked(options: dict[str, str], tunnel: str | None) -> None:
    if tunnel is None and "--url" not in options:
        refuse(
            "You did not specify any valid additional argument to the cloudflared tunnel command"
        )
    if tunnel == "" and not os.environ.get("TUNNEL_TOKEN"):
        refuse('"cloudflared tunnel run" requires the ID or name of the tunnel to run')
    if "--config" in options and not Path(options["--config"]).exists():
        refuse("no such configuration file")
    if Path(options.get("--config", "")) == Path(os.devnull):
        say(f"2024-01-31T12:00:00Z ERR Configuration file {os.devnull} was empty")


def refuse(what: str) -> NoReturn:
    sys.stdout.write(f"Incorrect Usage: {what}\n\nNAME:\n   cloudflared tunnel - Use it\n")
    sys.exit(1)


def say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def perform(number: int, verb: str, arguments: list[Any], options: dict[str, str]) -> None:
    match verb, arguments:
        case "says", [line]:
            say(line)
        case "prints", [line]:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        case "until", [name]:
            while not (FOLDER / name).exists():
                time.sleep(0.005)
        case "leads", []:
            forward(number, options)
        case "deaf", []:
            signal.signal(signal.SIGTERM, lambda *_: note("terms"))
        case "ends", [status]:
            sys.exit(status)
        case _:
            sys.exit(f"the plan asks for {verb}, which nobody knows")


def note(name: str) -> None:
    with (FOLDER / name).open("a") as file:
        file.write("x")


def forward(number: int, options: dict[str, str]) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            answer(connection, options)

    threading.Thread(target=accept, daemon=True).start()
    (FOLDER / f"unfinished-port-{number}").write_text(str(listener.getsockname()[1]))
    (FOLDER / f"unfinished-port-{number}").rename(FOLDER / f"port-{number}")


def answer(connection: socket.socket, options: dict[str, str]) -> None:
    """One request of a few bytes, and its answer."""
    with connection, to_origin(options) as origin:
        origin.sendall(connection.recv(65536))
        while data := origin.recv(65536):
            connection.sendall(data)


def to_origin(options: dict[str, str]) -> socket.socket:
    url = urlsplit(options["--url"])
    origin = socket.create_connection((url.hostname, url.port))
    if url.scheme == "http":
        return origin
    context = ssl.create_default_context()
    if "--no-tls-verify" in options:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(origin, server_hostname=url.hostname)


if __name__ == "__main__":
    main()
