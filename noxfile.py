"""The only door: `nox` runs what decides whether a change is good."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import nox

RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHONS = sorted({"3.11", "3.12", "3.13", RUNNING}, key=lambda version: int(version.split(".")[1]))
PROJECT = nox.project.load_toml("pyproject.toml")

nox.options.sessions = ["lint", "types", f"tests-{RUNNING}"]
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True


def _group(name: str) -> tuple[str, ...]:
    return nox.project.dependency_groups(PROJECT, name)


def _pytest(session: nox.Session, *arguments: str) -> None:
    workers = [] if {"-n", "-n0"} & set(session.posargs) else ["-n", "auto"]
    session.run("pytest", *workers, *arguments, *session.posargs)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the whole suite, and report branch coverage."""
    session.install("-e", ".[all]", *_group("tests"), *_group("examples"))
    coverage = ["--cov", "--cov-report=term", "--cov-fail-under=95"]
    _pytest(session, *([] if session.posargs else coverage))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, and that imports go down only."""
    session.install("-e", ".[all]", *_group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    session.install("-e", ".[all]", "nox", *_group("types"))
    session.run("mypy", *session.posargs)


@nox.session
def examples(session: nox.Session) -> None:
    """Run the examples against the sandbox."""
    session.install("-e", ".[all]", *_group("tests"), *_group("examples"))
    session.run("pytest", "tests/examples", *session.posargs)


@nox.session
def crash(session: nox.Session) -> None:
    """Kill -9 at every step, at least 500 times; a few minutes."""
    session.install("-e", ".[all]", *_group("tests"), *_group("examples"))
    session.run("python", "-m", "tests.crash.campaign", *session.posargs)


@nox.session
def cuts(session: nox.Session) -> None:
    """Cut downloads in a thousand ways; a few minutes."""
    session.install("-e", ".[all]", *_group("tests"), *_group("examples"))
    arguments = session.posargs or ("--cuts", "1000", "--seed", "2026")
    session.run("python", "-m", "tests.cuts.campaign", *arguments)


@nox.session
def fire(session: nox.Session) -> None:
    """Attack the receiver in every way we know, and measure; some minutes."""
    session.install("-e", ".[all]", *_group("tests"), *_group("examples"))
    session.run("python", "-m", "tests.fire.campaign", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz what reads callbacks, guided by coverage; a minute."""
    session.install("-e", ".[all]", "atheris", *_group("tests"))
    arguments = session.posargs or ("-max_total_time=60",)
    session.run("python", "-m", "tests.fuzz.fuzz_callbacks", *arguments)


@nox.session
def minimums(session: nox.Session) -> None:
    """Run the suite with the lowest versions that we allow."""
    session.install("uv")
    session.run(
        *("uv", "pip", "install", "--python", session.virtualenv.location),
        *("--resolution", "lowest-direct", "-e", ".[all]", *_group("tests"), *_group("examples")),
    )
    _pytest(session)


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel, and run the suite against it instead of the sources."""
    work = Path(session.create_tmp())
    shutil.rmtree(work)
    session.install("build", "twine")
    session.run("python", "-m", "build", "--outdir", str(work / "dist"))
    session.run("twine", "check", "--strict", *map(str, (work / "dist").iterdir()))
    wheel = next((work / "dist").glob("*.whl"))
    session.install(f"{wheel}[all]", *_group("tests"), *_group("examples"))
    # Elsewhere, so that `import af10_async` cannot find the sources.
    for folder in ("tests", "examples"):
        shutil.copytree(folder, work / "suite" / folder)
    for file in ("pyproject.toml", "README.md"):
        shutil.copy(file, work / "suite")
    with session.chdir(work / "suite"):
        _pytest(session)
