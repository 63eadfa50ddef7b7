"""The guard: a program that it runs does not outlive whoever started it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import psutil  # type: ignore[import-untyped]
import pytest

from af10_async.public_url import guard

pytestmark = pytest.mark.skipif(os.name != "posix", reason="it needs the signals of POSIX")


def is_alive(pid: int) -> bool:
    """Whether it runs; one that has ended may wait for somebody to take note of that."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def until_gone(pid: int) -> None:
    while is_alive(pid):
        await asyncio.sleep(0.005)


async def guarded(*command: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", guard.__file__, *command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def output_of(process: asyncio.subprocess.Process) -> bytes:
    """All of it, while its input stays open."""
    assert process.stdin is not None
    assert process.stdout is not None
    output = await process.stdout.read()
    await process.wait()
    process.stdin.close()
    return output


@pytest.mark.parametrize(("code", "status"), [("exit 0", 0), ("exit 9", 9), ("kill -9 $$", 137)])
async def test_the_guard_passes_on_output_and_status(code: str, status: int) -> None:
    process = await guarded("/bin/sh", "-c", f"echo out; echo err >&2; {code}")
    assert await output_of(process) == b"out\nerr\n"
    assert process.returncode == status


async def listening(number: int) -> asyncio.subprocess.Process:
    """A program that says so when it hears that signal, and ends."""
    code = (
        "import os, signal, time\n"
        f"signal.signal({number:d}, lambda *_: (os.write(1, b'heard'), os._exit(4)))\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)"
    )
    process = await guarded(sys.executable, "-I", "-S", "-c", code)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_guard_passes_on_signals(number: signal.Signals) -> None:
    process = await listening(number)
    process.send_signal(number)
    assert await output_of(process) == b"heard"
    assert process.returncode == 4


async def test_the_guard_asks_the_program_to_end_when_nobody_is_there() -> None:
    process = await listening(signal.SIGTERM)
    assert process.stdin is not None
    process.stdin.close()
    assert await output_of(process) == b"heard"
    assert process.returncode == 4


async def test_the_guard_ends_what_the_program_left_behind() -> None:
    process = await guarded("/bin/sh", "-c", "sleep 600 & echo $!")
    pid = int(await output_of(process))  # which ends, although the other one had it open
    await until_gone(pid)


async def test_the_guard_kills_a_deaf_program_when_nobody_is_there() -> None:
    code = f"import runpy; g = runpy.run_path({guard.__file__!r}); G = g['Guard']\n"
    code += "G.run.__globals__['GRACE'] = 0.05; G().run(['/bin/sh', '-c', "
    code += "'trap : TERM; echo $$; while :; do sleep 0.01; done'])"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-c", code),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    pid = int(await process.stdout.readline())
    process.stdin.close()
    await process.wait()
    assert not is_alive(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="it needs the parent death signal of Linux")
async def test_the_program_ends_when_the_guard_is_killed() -> None:
    process = await guarded("/bin/sh", "-c", "echo $$; exec sleep 600")
    assert process.stdin is not None
    assert process.stdout is not None
    pid = int(await process.stdout.readline())
    process.kill()
    await output_of(process)
    await until_gone(pid)


async def test_a_byte_kills_the_program_at_once() -> None:
    process = await guarded("/bin/sh", "-c", "trap '' TERM; echo ready; while :; do :; done")
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    process.stdin.write(b"!")
    assert await output_of(process) == b""
    assert process.returncode == 128 + signal.SIGKILL


async def test_a_program_that_cannot_be_started_has_a_status_of_its_own() -> None:
    process = await guarded("/no/such/program")
    assert b"/no/such/program: No such file" in await output_of(process)
    assert process.returncode == guard.NOT_STARTED
