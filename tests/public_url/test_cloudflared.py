"""Tunnels by `cloudflared`, against a program that takes and prints what the real one does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from af10_async.errors import ConfigurationError, PublicURLError
from af10_async.public_url import LocalServer
from af10_async.public_url.cloudflared import Cloudflared
from af10_async.runtime import Runtime

from ..conftest import Tls

posix = pytest.mark.skipif(os.name != "posix", reason="it needs the signals of POSIX")

LOCAL = LocalServer("127.0.0.1", 8443, is_tls=False)
SECRET = "canary-of-the-tunnels-token"
URL = "https://words-of-four-kinds.trycloudflare.com"
TIME = "2024-01-31T12:00:00Z"
REGISTERED = ["says", f"{TIME} INF Registered tunnel connection connIndex=0 location=ams08"]

Step = list[Any]


def quick(url: str = URL) -> list[Step]:
    """What it says of a quick tunnel, until that works."""
    lines = [
        "Requesting new quick Tunnel on trycloudflare.com...",
        "+" + "-" * 60 + "+",
        "|  Your quick Tunnel has been created! Visit it at (it may take some time):  |",
        f"|  {url}  |",
        "+" + "-" * 60 + "+",
        "Initial protocol quic",
    ]
    return [*(["says", f"{TIME} INF {line}"] for line in lines), REGISTERED]


def remote_rules(service: str) -> Step:
    config = {"ingress": [{"hostname": "af10.example.com", "service": service}]}
    text = json.dumps(json.dumps(config))
    return ["says", f"{TIME} INF Updated to new configuration config={text} version=2"]


class StandIn:
    """The program, and what became of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        source = Path(__file__).with_name("cloudflared_stand_in.py").read_text()
        self.program = folder / "cloudflared"
        self.program.write_text(f"#!{sys.executable} -IS\n{source}")
        self.program.chmod(0o700)

    def plan(self, *runs: list[Step]) -> None:
        (self.folder / "plan.json").write_text(json.dumps(runs))

    def signal(self, name: str) -> None:
        (self.folder / name).touch()

    def run(self, number: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / f"run-{number}.json").read_text())
        return found

    @property
    def runs(self) -> int:
        return len(list(self.folder.glob("run-*.json")))

    def is_guarded_by(self, process: psutil.Process) -> bool:
        try:
            return str(self.program) in process.cmdline()
        except psutil.NoSuchProcess:
            return False

    @property
    def living(self) -> list[int]:
        """Process ids of those that have not ended."""
        pids = [self.run(number)["pid"] for number in range(self.runs)]
        return [pid for pid in pids if is_alive(pid)]


def is_alive(pid: int) -> bool:
    """Whether it runs; one that has ended may wait for somebody to take note of that."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterable[StandIn]:
    monkeypatch.setenv("STAND_IN", str(tmp_path))
    for name in list(os.environ):
        if name.startswith("TUNNEL_"):
            monkeypatch.delenv(name)
    found = StandIn(tmp_path)
    yield found
    children = psutil.Process().children()
    left = found.living + [child.pid for child in children if found.is_guarded_by(child)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, "the program still runs"


async def until(is_so: Callable[[], object]) -> None:
    """Wait for what other processes do."""
    while not is_so():
        await asyncio.sleep(0.005)


@dataclass
class Naps:
    """Pauses that are over at once, or never."""

    short: set[float] = field(default_factory=set)
    taken: list[float] = field(default_factory=list)
    ready: Callable[[], object] = lambda: True
    """What a short one waits for."""
    time: float = 0.0

    async def sleep(self, seconds: float) -> None:
        if seconds not in self.short:
            await asyncio.get_running_loop().create_future()
        self.taken.append(seconds)
        await until(self.ready)

    @property
    def runtime(self) -> Runtime:
        return Runtime(sleep=self.sleep, monotonic=lambda: self.time)


def tunnel(stand_in: StandIn, naps: Naps | None = None, **arguments: Any) -> Cloudflared:
    runtime = (naps or Naps()).runtime
    return Cloudflared(program=str(stand_in.program), runtime=runtime, **arguments)


def nobody(url: str | None) -> None:
    raise AssertionError("nothing was to be told")


# -- an address ------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def origin(tls: Tls | None) -> AsyncIterator[LocalServer]:
    """A server that says hello."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        writer.close()

    context = None
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls.cert, tls.key)
    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context)
    async with server:
        yield LocalServer("127.0.0.1", server.sockets[0].getsockname()[1], is_tls=tls is not None)


async def ask(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: words-of-four-kinds.trycloudflare.com\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize("is_tls", [False, True])
async def test_requests_to_a_quick_tunnel_arrive(stand_in: StandIn, tls: Tls, is_tls: bool) -> None:
    stand_in.plan([["leads"], *quick()])
    cloudflared = tunnel(stand_in)
    async with origin(tls if is_tls else None) as local, cloudflared.open(local, nobody) as url:
        assert url == URL
        port = int((stand_in.folder / "port-0").read_text())
        assert (await ask(port)).endswith(b"hello")


async def test_a_quick_tunnel_is_told_to_leave_other_tunnels_alone(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TUNNEL_TOKEN", "TUNNEL_NAME", "TUNNEL_URL", "AF10_API_KEY"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("TUNNEL_EDGE_IP_VERSION", "6")
    stand_in.plan(quick())
    async with tunnel(stand_in).open(LOCAL, nobody):
        run = stand_in.run()
    assert run["arguments"] == [
        *("tunnel", "--no-autoupdate", "--loglevel", "info", "--config", os.devnull),
        *("--url", "http://127.0.0.1:8443"),
    ]
    assert SECRET not in run["environment"].values()
    assert run["environment"]["TUNNEL_EDGE_IP_VERSION"] == "6"


async def test_an_address_in_the_output_of_json_counts_too(stand_in: StandIn) -> None:
    messages = [f"|  {URL}  |", "Registered tunnel connection"]
    lines = [json.dumps({"level": "info", "time": TIME, "message": text}) for text in messages]
    stand_in.plan([["says", line] for line in lines])
    async with tunnel(stand_in).open(LOCAL, nobody) as url:
        assert url == URL


async def test_a_named_tunnel_has_its_hostname(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNNEL_TOKEN", SECRET)
    stand_in.plan([REGISTERED])
    local = LocalServer("::1", 8443, is_tls=True)
    named = tunnel(stand_in, hostname="AF10.example.com", tunnel="backups")
    async with named.open(local, nobody) as url:
        assert url == "https://af10.example.com"
        run = stand_in.run()
    assert run["arguments"] == [
        *("tunnel", "--no-autoupdate", "--loglevel", "info", "run"),
        *("--url", "https://[::1]:8443", "--no-tls-verify", "backups"),
    ]
    assert "TUNNEL_TOKEN" not in run["environment"]  # it would go before the name


async def test_a_tunnel_by_token_reads_it_from_the_environment(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TUNNEL_TOKEN", SECRET)
    stand_in.plan([remote_rules("http://localhost:8443"), REGISTERED])
    async with tunnel(stand_in, hostname="af10.example.com").open(LOCAL, nobody) as url:
        assert url == "https://af10.example.com"
        run = stand_in.run()
    assert run["arguments"] == ["tunnel", "--no-autoupdate", "--loglevel", "info", "run"]
    assert run["environment"]["TUNNEL_TOKEN"] == SECRET
    assert warnings(caplog) == []


async def test_rules_at_cloudflare_that_lead_elsewhere_are_warned_of(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TUNNEL_TOKEN", SECRET)
    stand_in.plan([remote_rules("http://localhost:9999"), REGISTERED])
    async with tunnel(stand_in, hostname="af10.example.com").open(LOCAL, nobody):
        pass
    (warning,) = warnings(caplog)
    assert "af10.example.com" in warning
    assert "8443" in warning


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]


def test_only_a_quick_tunnel_may_change() -> None:
    assert Cloudflared().may_change
    assert not Cloudflared(hostname="af10.example.com").may_change


# -- no address ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"hostname": "https://af10.example.com"},
        {"hostname": "af10.example.com/path"},
        {"hostname": "af10.example.com:443"},
        {"hostname": "localhost"},
        {"hostname": ""},
        {"hostname": "af10.example.com\n"},
        {"tunnel": "backups"},
        {"hostname": "af10.example.com", "tunnel": ""},
        {"hostname": "af10.example.com", "tunnel": "--hello-world"},
    ],
)
def test_a_wrong_setting_is_refused_at_once(arguments: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        Cloudflared(**arguments)  # type: ignore[arg-type]


async def test_a_program_that_is_not_installed_says_where_it_is_to_be_had() -> None:
    with pytest.raises(PublicURLError, match=r"not installed.*developers\.cloudflare\.com"):
        async with Cloudflared(program="no-such-cloudflared").open(LOCAL, nobody):
            pass


async def test_a_hostname_without_a_tunnel_and_a_token_is_refused(stand_in: StandIn) -> None:
    with pytest.raises(PublicURLError, match="TUNNEL_TOKEN"):
        async with tunnel(stand_in, hostname="af10.example.com").open(LOCAL, nobody):
            pass
    assert stand_in.runs == 0


async def failing(cloudflared: Cloudflared) -> PublicURLError:
    with pytest.raises(PublicURLError) as caught:
        async with cloudflared.open(LOCAL, nobody):
            pass
    return caught.value


async def test_a_program_that_ends_at_once_is_an_error_with_its_words(stand_in: StandIn) -> None:
    stand_in.plan(
        [
            ["says", f"{TIME} INF Requesting new quick Tunnel on trycloudflare.com..."],
            ["says", f'{TIME} ERR Error unmarshaling response status_code="429 Too Many Requests"'],
            ["says", "failed to unmarshal quick Tunnel: invalid character 'e'"],
            ["ends", 1],
        ]
    )
    error = await failing(tunnel(stand_in))
    assert "exit status 1" in str(error)
    assert "429 Too Many Requests" in str(error)
    assert "wait some minutes" in str(error)
    assert error.retryable


async def test_its_words_hold_no_token_and_are_short(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNNEL_TOKEN", SECRET)
    stand_in.plan([["says", f"{TIME} ERR {SECRET} is wrong, " + "really " * 100], ["ends", 255]])
    error = await failing(tunnel(stand_in, hostname="af10.example.com"))
    assert SECRET not in str(error)
    assert "is wrong" in str(error)
    assert len(str(error)) < 500
    assert not error.retryable


async def test_a_program_of_another_kind_is_an_error(stand_in: StandIn) -> None:
    stand_in.program.write_bytes(b"\x7fELF, but no more than that")
    error = await failing(tunnel(stand_in))
    assert "exit status 127" in str(error)
    assert "cannot start" in str(error)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ([], "gave no address within 7 s"),
        ([["says", f"{TIME} INF |  {URL}  |"]], "was not connected to Cloudflare within 7 s"),
        (
            [["says", f"{TIME} ERR Failed to dial a quic connection error=timeout"]],
            "Failed to dial a quic connection.*7844",
        ),
    ],
)
async def test_no_connection_in_time_is_an_error(
    stand_in: StandIn, caplog: pytest.LogCaptureFixture, said: list[Step], words: str
) -> None:
    stand_in.plan([*said, ["says", f"{TIME} INF That was all"]])
    naps = Naps({7}, ready=lambda: "That was all" in caplog.text)
    error = await failing(tunnel(stand_in, naps, start_timeout=7))
    error.__cause__ = None
    with pytest.raises(PublicURLError, match=words):
        raise error
    assert error.retryable
    assert warnings(caplog) == []  # the error has said it all
    assert stand_in.living == []


# -- it dies ---------------------------------------------------------------------------------------


async def test_a_tunnel_that_dies_is_told_of_and_started_again(
    stand_in: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    second = "https://four-other-words-now.trycloudflare.com"
    stand_in.plan([*quick(), ["until", "enough"], ["ends", 3]], quick(second))
    told: list[str | None] = []
    naps = Naps({1})
    async with tunnel(stand_in, naps).open(LOCAL, told.append) as url:
        assert url == URL
        assert told == []
        stand_in.signal("enough")
        await until(lambda: len(told) == 2)
        assert told == [None, second]
        assert naps.taken == [1]
    assert told == [None, second]
    assert "ended with exit status 3" in warnings(caplog)[0]


async def test_a_named_tunnel_tells_the_same_address_again(stand_in: StandIn) -> None:
    stand_in.plan([REGISTERED, ["until", "enough"], ["ends", 0]], [REGISTERED])
    told: list[str | None] = []
    named = tunnel(stand_in, Naps({1}), hostname="af10.example.com", tunnel="backups")
    async with named.open(LOCAL, told.append) as url:
        stand_in.signal("enough")
        await until(lambda: len(told) == 2)
    assert told == [None, url]


@posix
async def test_a_kill_is_an_end_like_any_other(stand_in: StandIn) -> None:
    stand_in.plan(quick())
    told: list[str | None] = []
    async with tunnel(stand_in, Naps({1})).open(LOCAL, told.append):
        os.kill(stand_in.run()["pid"], signal.SIGKILL)
        await until(lambda: len(told) == 2)
    assert told == [None, URL]


async def test_pauses_grow_while_it_does_not_start(
    stand_in: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    fails: list[Step] = [["says", f"{TIME} ERR no luck today"], ["ends", 1]]
    dies = [*quick(), ["until", "enough"], ["ends", 1]]
    stand_in.plan(dies, *[fails] * 7, quick())
    told: list[str | None] = []
    naps = Naps({1, 2, 4, 8, 16, 32, 60})
    async with tunnel(stand_in, naps).open(LOCAL, told.append):
        stand_in.signal("enough")
        await until(lambda: len(told) == 2)
    assert naps.taken == [1, 2, 4, 8, 16, 32, 60, 60]
    assert told == [None, URL]
    assert "no luck today" in caplog.text


async def test_pauses_are_short_again_after_a_run_that_went_well(stand_in: StandIn) -> None:
    stand_in.plan(*[[*quick(), ["until", f"enough-{n}"], ["ends", 1]] for n in range(4)])
    told: list[str | None] = []
    naps = Naps({1, 2, 4})
    async with tunnel(stand_in, naps).open(LOCAL, told.append):
        for number, lived in enumerate([0, 0, 60]):
            naps.time += lived
            stand_in.signal(f"enough-{number}")
            await until(lambda: len(told) == 2 * number + 2)  # noqa: B023 - awaited at once
    assert naps.taken == [1, 2, 1]


async def test_a_tunnel_can_be_left_while_it_is_away(stand_in: StandIn) -> None:
    stand_in.plan([*quick(), ["until", "enough"], ["ends", 1]])
    told: list[str | None] = []
    async with tunnel(stand_in).open(LOCAL, told.append):
        stand_in.signal("enough")
        await until(lambda: told)
    assert told == [None]


async def test_a_tunnel_can_be_left_while_it_starts_again(stand_in: StandIn) -> None:
    stand_in.plan([*quick(), ["until", "enough"], ["ends", 1]], [])
    told: list[str | None] = []
    async with tunnel(stand_in, Naps({1})).open(LOCAL, told.append):
        stand_in.signal("enough")
        await until(lambda: stand_in.runs == 2)
    assert told == [None]
    assert stand_in.living == []


# -- it ends with us -------------------------------------------------------------------------------


async def test_leaving_ends_the_program(stand_in: StandIn) -> None:
    stand_in.plan(quick())
    async with tunnel(stand_in).open(LOCAL, nobody):
        assert stand_in.living
    assert stand_in.living == []


@posix
async def test_a_program_that_does_not_end_is_asked_once_and_killed(stand_in: StandIn) -> None:
    stand_in.plan([["deaf"], *quick()])
    naps = Naps({5}, ready=(stand_in.folder / "terms").exists)
    async with tunnel(stand_in, naps).open(LOCAL, nobody):
        assert stand_in.living
    assert stand_in.living == []
    assert naps.taken == [5]
    assert (stand_in.folder / "terms").read_text() == "x"


LEAVES_SOMETHING = """
import pathlib, subprocess, sys, time

sleep = [sys.executable, "-ISc", "import time; time.sleep(20)"]
left = subprocess.Popen(sleep, start_new_session=True)
pathlib.Path(FOLDER, "left").write_text(str(left.pid))
sys.stderr.write(LINES)
sys.stderr.flush()
while not pathlib.Path(FOLDER, "enough").exists():
    time.sleep(0.005)
"""


@pytest.fixture
def leaving(stand_in: StandIn) -> Iterable[Path]:
    """A program that leaves another one behind, which has its output open for 20 s.

    Gives the file with the process id of that one.
    """
    lines = "".join(f"{line}\n" for _, line in quick())
    given = f"LINES = {lines!r}\nFOLDER = {str(stand_in.folder)!r}\n"
    stand_in.program.write_text(f"#!{sys.executable} -IS\n{given}{LEAVES_SOMETHING}")
    left = stand_in.folder / "left"
    yield left
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(left.read_text()), signal.SIGKILL)


@posix
async def test_what_it_left_behind_does_not_hold_up_its_end(
    stand_in: StandIn, leaving: Path
) -> None:
    naps = Naps({0.5})
    async with tunnel(stand_in, naps).open(LOCAL, nobody) as url:
        assert url == URL
    assert is_alive(int(leaving.read_text()))
    assert naps.taken == [0.5]


@posix
async def test_an_end_is_noticed_whatever_it_left_behind(stand_in: StandIn, leaving: Path) -> None:
    told: list[str | None] = []
    async with tunnel(stand_in, Naps({0.5})).open(LOCAL, told.append):
        stand_in.signal("enough")
        await until(lambda: told)
        assert is_alive(int(leaving.read_text()))
    assert told == [None]


async def test_one_object_serves_several_servers_at_a_time(stand_in: StandIn) -> None:
    stand_in.plan(quick())
    shared = tunnel(stand_in)
    async with shared.open(LOCAL, nobody), shared.open(LOCAL, nobody):
        assert len(stand_in.living) == 2
    assert stand_in.living == []


async def test_an_error_inside_leaves_nothing_behind(stand_in: StandIn) -> None:
    stand_in.plan(quick())
    with pytest.raises(KeyError):
        async with tunnel(stand_in).open(LOCAL, nobody):
            raise KeyError
    assert stand_in.living == []


@pytest.mark.parametrize("turns", [*range(12), None])
async def test_a_start_that_is_cancelled_leaves_nothing_behind(
    stand_in: StandIn, turns: int | None
) -> None:
    """Cancelled after so many turns of the loop, or when the program runs (None)."""
    stand_in.plan([])
    held = asyncio.create_task(hold(tunnel(stand_in)))
    if turns is None:
        await until(lambda: stand_in.runs)
    for _ in range(turns or 0):
        await asyncio.sleep(0)
    held.cancel()
    with pytest.raises(asyncio.CancelledError):
        await held
    assert stand_in.living == []


async def hold(cloudflared: Cloudflared) -> None:
    async with cloudflared.open(LOCAL, nobody):
        await asyncio.get_running_loop().create_future()


async def test_cancelling_twice_still_ends_the_program(stand_in: StandIn) -> None:
    stand_in.plan(quick())
    held = asyncio.create_task(hold(tunnel(stand_in)))
    await until(lambda: stand_in.runs)
    for _ in range(3):
        held.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await held
    assert stand_in.living == []


HOLDER = """
import asyncio, sys
from af10_async.public_url import LocalServer
from af10_async.public_url.cloudflared import Cloudflared

async def main():
    cloudflared = Cloudflared(program=sys.argv[1])
    async with cloudflared.open(LocalServer("127.0.0.1", 8443, False), print) as url:
        print(url, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@posix
async def test_when_we_are_killed_the_program_ends_too(stand_in: StandIn) -> None:
    stand_in.plan(quick())
    holder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLDER, str(stand_in.program)), stdout=asyncio.subprocess.PIPE
    )
    assert holder.stdout is not None
    assert (await holder.stdout.readline()).strip().decode() == URL
    assert stand_in.living
    holder.kill()
    await holder.wait()
    await until(lambda: not stand_in.living)


# -- what it prints --------------------------------------------------------------------------------


async def test_all_that_it_prints_is_read(stand_in: StandIn) -> None:
    many = [["says", f"{TIME} INF {number} " + "x" * 1000] for number in range(300)]
    endless = ["prints", "y" * 300_000]
    told: list[str | None] = []
    stand_in.plan([*many, endless, *quick(), *many, endless, ["ends", 0]], quick())
    async with tunnel(stand_in, Naps({1})).open(LOCAL, told.append):
        await until(lambda: len(told) == 2)  # it has come to its end


async def test_only_its_errors_are_logged_and_not_all_of_them(
    stand_in: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    error = ["says", f"{TIME} ERR Request failed error=timeout"]
    stand_in.plan([*quick(), *[error] * 30, ["says", f"{TIME} INF That was all"]])
    async with tunnel(stand_in).open(LOCAL, nobody):
        await until(lambda: "That was all" in caplog.text)
    assert len(warnings(caplog)) == 10
    assert all("Request failed" in warning for warning in warnings(caplog))


async def test_no_secret_is_logged(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    long = "eyJhIjoiY2FuYXJ5LWNhbmFyeS1jYW5hcnkiLCJ0IjoiY2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5In0="
    once = "8c4f7a4e-1111-4222-8333-444455556666"
    monkeypatch.setenv("TUNNEL_TOKEN", SECRET)
    stand_in.plan(
        [
            ["says", f"{TIME} INF Settings: map[token:{SECRET} other:{long}]"],
            REGISTERED,
            ["says", f"{TIME} ERR {SECRET} {long}"],
            ["says", f"{TIME} ERR Request failed dest=https://af10.example.com/key?id={once}"],
            ["says", f"panic: {SECRET}"],
            ["says", f"{TIME} INF That was all"],
        ]
    )
    by_token = tunnel(stand_in, hostname="af10.example.com")
    async with by_token.open(LOCAL, nobody):
        await until(lambda: "That was all" in caplog.text)
    said = caplog.text + repr(by_token)
    assert not [secret for secret in (SECRET, long, once) if secret in said]
