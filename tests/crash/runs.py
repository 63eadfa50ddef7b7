"""One job whose processes are killed, one after another, until one is left alone; and a verdict."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from af10_async.sandbox import Account, Fault, Sandbox

from ..ports import free_port
from ..stores.urls import SHARED_URLS
from .life import Life, TakeUp
from .nursery import PATIENCE, Nursery, Process
from .steps import BLOCK, FILE_SIZE, Owed, Step

SHORT = 0.1
"""Seconds that a process waits for a callback which does not come."""
NAME, OLDER = "backup.zip", b"an older backup"


@dataclass(frozen=True, slots=True)
class Moment:
    """A kill at no step in particular."""

    fraction: float
    """Of the time that a process takes when it is left alone."""
    late: float
    """Seconds after which AF10 calls back."""
    name: str = "at any moment"


Kill = Step | Moment


@dataclass(frozen=True, slots=True)
class Case:
    """The kills of one job, and how each process after a kill finds it again."""

    number: int
    kind: str
    kills: tuple[Kill, ...]
    take_ups: tuple[TakeUp, ...]
    """One for each kill."""
    is_named: bool = False
    """Whether the file is saved under a path, and not under AF10's name in a folder."""

    def __str__(self) -> str:
        steps = ", ".join(
            f"{kill.name} (resumed by {how})"
            for kill, how in zip(self.kills, self.take_ups, strict=True)
        )
        return f"case {self.number} on {self.kind}: {steps}"


@dataclass(slots=True)
class Verdict:
    """What became of one case."""

    case: Case
    killed: list[Kill] = field(default_factory=list)
    """Those of its kills that met a process which was still alive."""
    losses: list[str] = field(default_factory=list)
    seconds: float = 0.0


class LossError(Exception):
    """Something that must not be."""


@dataclass(slots=True)
class World:
    """What all cases share."""

    sandbox: Sandbox
    nursery: Nursery
    folder: Path
    accounts: Iterator[Account]
    tls_cert: Path
    """Of the clients' callback servers; AF10 trusts it."""
    tls_key: Path
    life_seconds: float = 0.5
    """What a process takes when it is left alone, as far as is known."""
    _ports: set[int] = field(default_factory=set)

    def port(self) -> int:
        """One for process after process of one case."""
        while (port := free_port()) in self._ports:
            pass
        self._ports.add(port)
        return port


def sandbox_for(accounts: int, callback_ca: Path | None = None) -> Sandbox:
    """An AF10 with an account for each case."""
    found = [Account(username=f"dealer-{number}") for number in range(accounts)]
    return Sandbox(file_size=FILE_SIZE, accounts=found, vehicles=0, callback_ca=callback_ca)


async def play(world: World, case: Case) -> Verdict:
    """Let one case happen."""
    verdict = Verdict(case)
    clock = asyncio.get_running_loop().time
    started = clock()
    run = _Run(world, case, verdict)
    try:
        await run.play()
    except LossError as loss:
        verdict.losses.append(str(loss))
    except TimeoutError:
        verdict.losses.append("it hangs")
    finally:
        run.end()
    if verdict.losses:
        verdict.losses.append(f"see {run.folder}")
    verdict.seconds = clock() - started
    return verdict


class _Run:
    """One case under way."""

    def __init__(self, world: World, case: Case, verdict: Verdict) -> None:
        self._world = world
        self._case = case
        self._verdict = verdict
        self._sandbox = world.sandbox
        self._account = next(world.accounts)
        self.folder = world.folder / f"{case.number}-{case.kind}"
        self._store = self.folder / "store"
        self._target = self.folder / "backups"
        self._target.mkdir(parents=True)
        steps = [kill for kill in case.kills if isinstance(kill, Step)]
        self._overwrite = any(step.overwrite for step in steps)
        self._is_named = case.is_named or self._overwrite
        if self._overwrite:
            (self._target / NAME).write_bytes(OLDER)
        self._life = self._orders(all(step.has_links for step in steps))
        self._owed: Owed = "nothing"
        self._is_accepted: bool | None = False
        """Whether the store knows that AF10 accepted the job; None when that is not clear."""
        self._is_registered: bool | None = False
        self._processes: list[Process] = []

    def _orders(self, has_links: bool) -> Life:
        return Life(
            account={
                "base_url": self._sandbox.base_url,
                "api_key": self._account.api_key,
                "username": self._account.username,
                "password": self._account.password,
            },
            tls_cert=str(self._world.tls_cert),
            tls_key=str(self._world.tls_key),
            port=self._world.port(),
            store=SHARED_URLS[self._case.kind](self._store),
            target=str(self._target / NAME if self._is_named else self._target),
            overwrite=self._overwrite,
            log=str(self.folder / "log"),
            has_links=has_links,
        )

    def end(self) -> None:
        """Leave no process behind."""
        for process in self._processes:
            self._world.nursery.kill(process)

    async def play(self) -> None:
        """The processes that are killed, then the one that is not."""
        for number, kill in enumerate(self._case.kills):
            life = self._life
            if number:
                life = self._resumed(self._case.take_ups[number - 1])
            async with asyncio.timeout(PATIENCE):
                if isinstance(kill, Step):
                    await self._at_step(kill, life)
                else:
                    await self._at_moment(kill, life)
            self._look_for_damage()
            if self._processes[-1].code == 0:
                break  # it was faster than the kill
        if self._processes[-1].code != 0:
            async with asyncio.timeout(PATIENCE):
                await self._at_last(self._case.take_ups[-1])
        self._judge()

    # -- what AF10 knows ---------------------------------------------------------------------------

    @property
    def _jobs(self) -> list[Any]:
        return [job for job in self._sandbox.jobs if job.account == self._account.username]

    def _count(self, method: str, path: str) -> int:
        """Requests of this account; `files` stands for all files."""
        return sum(
            request.method == method
            and (request.path == path or (path == "files" and request.where == "file"))
            for request in self._sandbox.requests
            if request.account == self._account.username
        )

    def _is_answered(self) -> bool:
        return any(call.status == 200 for job in self._jobs for call in job.callbacks)

    def _is_there(self) -> bool:
        """Whether there is something under the file's own name."""
        names = [each.name for each in self._target.iterdir() if not each.name.startswith(".")]
        return bool(names) and not self._overwrite

    # -- one process after another -----------------------------------------------------------------

    def _start(self, life: Life) -> Process:
        process = self._world.nursery.start(life)
        self._processes.append(process)
        return process

    def _resumed(self, how: TakeUp, **more: Any) -> Life:
        ordered = self._ordered()
        names = {name: ordered[-1][name] for name in ("key", "ticket")} if ordered else {}
        if not names:
            how = "unfinished"  # it died so early that nobody knows a name
        return replace(self._life, take_up=how, may_be_done=self._is_there(), **names, **more)

    def _ordered(self) -> list[dict[str, Any]]:
        """The jobs that were ordered: where AF10 never heard of one, there may be another."""
        return [each for process in self._processes for each in process.all("ordered")]

    async def _at_step(self, step: Step, life: Life) -> None:
        account = self._account.username
        is_first = not life.take_up
        faults = step.faults(account)
        if is_first and not step.comes_early:
            faults += (Fault.never(account=account),)  # it is called when the time has come
        with self._sandbox.faults.during(*faults):
            is_so = self._moments(step)
            process = self._start(replace(life, die_at=step.die_at))
            if step.phase != "start" if is_first else self._owed == "call":
                await self._call_when_ready(process, step, is_first=is_first)
            if step.kill_when:
                await _until(lambda: process.code is not None or is_so())
                self._world.nursery.kill(process)
            await process.says("ended")
        self._note_end(process, step)
        if process.code == 0:
            raise LossError(f"a process was not killed: {step.name}")
        if is_first:
            self._is_accepted = step.is_accepted
            self._is_registered = step.is_registered
        self._owed = step.owed

    async def _call_when_ready(self, process: Process, step: Step, *, is_first: bool) -> None:
        ready = "asleep" if step.die_at == "asleep" else "accepted" if is_first else "listening"
        if await process.says(ready):
            await self._sandbox.call_back(self._jobs[0])

    def _moments(self, step: Step) -> Callable[[], bool]:
        """What shows that the time has come to kill a process that is about to start."""
        redeemed = self._count("GET", "/webhook")
        fetched = self._count("GET", "files")

        def written() -> int:
            sizes = [each.stat().st_size for each in self._target.glob(".af10-*.part")]
            return max(sizes, default=-1) if self._count("GET", "files") > fetched else -1

        moments: dict[str, Callable[[], bool]] = {
            "posted": lambda: bool(self._jobs),
            "answered": self._is_answered,
            "redeeming": lambda: self._count("GET", "/webhook") > redeemed,
            "begun": lambda: written() >= 0,
            "half": lambda: written() >= BLOCK,
        }
        return moments.get(step.kill_when, lambda: False)

    async def _at_moment(self, moment: Moment, life: Life) -> None:
        fault = Fault.late(moment.late, account=self._account.username)
        seconds = moment.fraction * self._world.life_seconds
        with self._sandbox.faults.during(fault):
            if life.take_up and self._owed in ("nothing", "call", "perhaps"):
                life = replace(life, patience=SHORT, waits_on=bool(self._jobs))
            process = self._start(life)
            calling = asyncio.create_task(self._call_again(process))
            with suppress(TimeoutError):
                await asyncio.wait_for(process.says("ended"), seconds)
            self._world.nursery.kill(process)
            await process.says("ended")
            await calling
            await asyncio.sleep(0.02)  # what it sent with its last breath arrives
            if self._jobs:
                await _until(lambda: bool(self._jobs[0].callbacks))
        self._note_end(process, moment)
        if self._is_answered():
            self._owed, self._is_accepted = "file", True
        else:
            self._owed, self._is_accepted = ("perhaps" if self._jobs else "nothing"), None
        self._is_registered = None

    def _note_end(self, process: Process, kill: Kill) -> None:
        if process.all("failed"):
            raise LossError(f"{kill.name}: {process.all('failed')[0]['error']}")
        if process.code == -9:
            self._verdict.killed.append(kill)

    async def _at_last(self, how: TakeUp) -> None:
        """The process that is left alone."""
        waits_long = self._owed in ("file", "done")
        life = self._resumed(how, patience=PATIENCE if waits_long else SHORT)
        process = self._start(replace(life, waits_on=bool(self._jobs)))
        calling = asyncio.create_task(self._call_again(process))
        await process.says("ended")
        await calling
        if process.all("failed"):
            raise LossError(process.all("failed")[0]["error"])
        if process.code:
            raise LossError(f"the last process ended with {process.code}")
        self._judge_waits(process, life)

    async def _call_again(self, process: Process) -> None:
        """AF10 calls a second time when a wait for the first has ended."""
        jobs = self._jobs
        if jobs and await process.says("timeout"):
            status = await self._sandbox.call_back(jobs[0])
            if status != 200 and await process.says("end"):
                raise LossError(f"AF10 called again, and was answered {status}")

    # -- the verdict -------------------------------------------------------------------------------

    def _look_for_damage(self) -> None:
        """After a kill there may be a partial file, but none that is not whole under its name.

        But where there are no hard links: there an empty one keeps the name for a moment.
        """
        for file in self._target.iterdir():
            is_kept_name = not self._life.has_links and not file.stat().st_size
            if not file.name.startswith(".") and not is_kept_name and not self._is_good(file):
                self._verdict.losses.append(f"after a kill, {file.name} is not whole")

    def _is_good(self, file: Path) -> bool:
        content = file.read_bytes()
        if self._overwrite and content == OLDER:
            return True
        digest = hashlib.sha256(content).hexdigest()
        return digest in [self._sandbox.archive_sha256(job) for job in self._jobs]

    def _judge_waits(self, process: Process, life: Life) -> None:
        """Whether the error that ended a wait was due, and right."""
        found, losses = process.all("timeout"), self._verdict.losses
        is_due = self._owed == "call" or (
            self._owed == "nothing" and (self._is_registered or life.take_up == "ticket")
        )
        if self._owed != "perhaps" and self._is_registered is not None and is_due != bool(found):
            losses.append("a wait ended without a callback" if found else "a wait did not end")
        for each in found:
            if each["key"] != life.key:
                losses.append("an error names another job")
            if self._is_accepted is not None and each["start_certain"] is not self._is_accepted:
                losses.append(f"start_certain is {each['start_certain']}")
        if self._owed == "nothing" and any(each["start_certain"] for each in found):
            losses.append("an error says that AF10 accepted what was never sent")
        if self._owed == "file" and found:
            losses.append("AF10 got its 200, and had to call again")

    def _judge(self) -> None:
        """What there must be in the end, whatever happened before."""
        losses = self._verdict.losses
        posts = self._count("POST", "/backup/owner")
        if posts != 1:
            losses.append(f"{posts} POSTs")
        names = sorted(each.name for each in self._target.iterdir())
        wanted = [NAME if self._is_named else job.filename for job in self._jobs]
        if names != wanted:
            losses.append(f"in the folder: {names}")
        losses += [
            f"{name} is not the file that AF10 has"
            for name in names
            if hashlib.sha256((self._target / name).read_bytes()).hexdigest()
            not in [self._sandbox.archive_sha256(job) for job in self._jobs]
        ]
        self._judge_store()
        self._judge_end(self._processes[-1])

    def _judge_store(self) -> None:
        if self._store.exists():
            usual = {f"jobs.db{ending}" for ending in ("", "-journal", "-wal", "-shm")}
            odd = {each.name for each in self._store.iterdir()} - usual
            if odd:
                self._verdict.losses.append(f"beside the store: {sorted(odd)}")

    def _judge_end(self, process: Process) -> None:
        """That nothing is left to do, but to wait for what was never sent."""
        given_up = {each["key"] for each in self._ordered()[:-1]}
        if set(process.all("end")[0]["left"]) - given_up:
            self._verdict.losses.append("something is left to do")


async def _until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await asyncio.sleep(0.005)
