"""The pytest plugin: fixtures that work whichever plugin runs the tests, in runs of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BODY = """
import asyncio
import pytest
from af10_async import AF10Client, CallbackTimeoutError
from af10_async.sandbox import Fault

{marks}

async def test_a_backup(af10_client, af10_sandbox):
    backup = await af10_client.backup_owner()
    assert await backup.read() == af10_sandbox.archive(af10_sandbox.jobs[0])

@pytest.mark.af10_sandbox(file_size=2048, vehicles=3)
@pytest.mark.af10_client(callback_timeout=0.1, name="mine")
@pytest.mark.af10_faults(Fault.never())
async def test_markers(af10_client, af10_sandbox):
    assert af10_client.name == "mine"
    assert len(await af10_client.vehicles().all()) == 3
    with pytest.raises(CallbackTimeoutError):
        await af10_client.backup_owner()
    assert not af10_sandbox.faults.pending
    with af10_sandbox.faults.during(Fault.truncated(100)):
        assert len(await (await af10_client.backup_owner()).read()) == 2048

async def test_from_env(af10_env, af10_sandbox):
    async with AF10Client.from_env() as af10:
        await af10.backup_owner()
    assert len(af10_sandbox.jobs) == 1

class TestInAClass:
    async def test_the_loop_is_the_tests_own(self, af10_client):
        await asyncio.gather(*(af10_client.vehicle(n) for n in range(1, 9)))

@pytest.fixture
def my_client(af10_client):
    return af10_client

async def test_through_a_fixture_of_the_users(my_client):
    await my_client.authenticate()
"""
ANYIO = """
pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""
NUMBER = 5
"""Tests in it."""
OF_LOOPS = """
import pytest

@pytest.mark.asyncio(loop_scope="module")
class TestModule:
    async def test_one(self, af10_client):
        await af10_client.authenticate()

    async def test_two(self, af10_client):
        await af10_client.authenticate()

@pytest.mark.asyncio(loop_scope="session")
async def test_session(af10_client):
    await af10_client.authenticate()

@pytest.mark.asyncio
async def test_function(af10_client):
    await af10_client.authenticate()
"""
WRONG = """
import pytest

def test_synchronous(af10_sandbox):
    pass

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_on_trio(af10_client):
    pass

@pytest.fixture(scope="module")
def too_long(af10_sandbox):
    pass

@pytest.mark.asyncio
async def test_that_fails(af10_client, af10_sandbox):
    await af10_client.backup_owner()
    assert af10_sandbox.jobs == ["its own failure"]

@pytest.mark.asyncio
async def test_that_leaves_jobs_open(af10_client):
    await af10_client.backup_owner().start()
"""


def inner_run(folder: Path, text: str, *options: str) -> tuple[int, str]:
    """pytest, with the plugins that a user has, over one file."""
    (folder / "test_inner.py").write_text(text)
    (folder / "pytest.ini").write_text(
        "[pytest]\nfilterwarnings = error\naddopts = --strict-markers\n"
    )
    if "no:asyncio" not in options:
        options += ("-o", "asyncio_default_fixture_loop_scope=function")
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider")
    done = subprocess.run(
        [*command, "-p", "no:xdist", *options], cwd=folder, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("marks", "options"),
    [
        pytest.param("", ["-o", "asyncio_mode=auto"], id="pytest-asyncio, auto"),
        pytest.param("", ["-o", "asyncio_mode=auto", "-p", "no:anyio"], id="auto, without anyio"),
        pytest.param("pytestmark = pytest.mark.asyncio", [], id="pytest-asyncio, strict"),
        pytest.param(ANYIO, [], id="anyio, beside pytest-asyncio"),
        pytest.param(ANYIO, ["-p", "no:asyncio"], id="anyio alone"),
        pytest.param(
            ANYIO.replace("pytestmark = pytest.mark.anyio", ""),
            ["-o", "anyio_mode=auto", "-p", "no:asyncio"],
            id="anyio, auto",
        ),
    ],
)
def test_the_fixtures_work_with(tmp_path: Path, marks: str, options: list[str]) -> None:
    code, text = inner_run(tmp_path, BODY.format(marks=marks), *options)
    assert f"{NUMBER} passed" in text, text
    assert code == 0, text


def test_the_loop_of_a_test_may_have_any_scope(tmp_path: Path) -> None:
    code, text = inner_run(tmp_path, OF_LOOPS)
    assert "4 passed" in text, text
    assert code == 0, text


def test_what_cannot_work_is_a_sentence_and_a_failure_is_the_tests_own(tmp_path: Path) -> None:
    code, text = inner_run(tmp_path, WRONG)
    assert code == 1
    assert "af10_sandbox is for asynchronous tests: make it `async def`" in text
    assert "af10_client needs asyncio: let the fixture anyio_backend return 'asyncio'" in text
    assert "its own failure" in text
    assert "1 failed, 1 passed, 2 errors" in text, text
    assert "pytest_plugin.py" not in text


def test_a_run_that_uses_no_fixture_imports_nothing_of_it() -> None:
    code = (
        "import sys; import af10_async.pytest_plugin;"
        "print(*[m for m in ('httpx', 'aiohttp', 'pydantic', 'anyio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_example_passes_where_it_was_copied_to(tmp_path: Path) -> None:
    example = (ROOT / "examples" / "test_with_sandbox.py").read_text()
    code, text = inner_run(tmp_path, example, "-o", "asyncio_mode=auto")
    assert "5 passed" in text, text
    assert code == 0
