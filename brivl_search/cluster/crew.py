"""The workers of a build on all hosts: who is there, what each does, and what becomes of the work of those that die.

Ray starts plain actors and says when one is dead; the rest is here. A unit that is under way when its worker dies is
done again by another, so a death costs one unit. A unit whose workers die twice is cut in half, and its parts again,
until one picture is left. If three workers die of that one, it is skipped by name.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from brivl_search.cluster.session import Host, Session
from brivl_search.cluster.units import Result, Unit, UnitFolder
from brivl_search.cluster.worker import Job, Worker
from brivl_search.corpus.decode_pool import Decoded
from brivl_search.embedding.batches import Embedded
from brivl_search.errors import BrivlSearchError

LOOK_S = 2.0  # between looks at who is there
SOON_S = 0.5  # before the look after a death
PATIENCE_S = 60.0  # how long a build waits for a host to come (back)
BUSY_S = 300.0  # and for workers to start on hosts that are there
MOST_DECODING = 16  # decoding processes of a worker
DEATHS = {1: 3}  # of workers, before a unit of so many pictures is given up
PART_DEATHS, UNIT_DEATHS = 1, 2  # before a part of a suspicious unit, or a whole unit, is cut in half
FAILURES = 3  # errors of a unit, before they end the build
IN_A_ROW = 40  # deaths without any finished unit between them: it is not the pictures
STARTS = 3  # deaths of workers that have not started yet, before their host is left out
WORKER_DIED = "worker died"


@dataclass(eq=False)
class _Task:
    """A unit to do; `part` of one whose workers died."""

    name: str
    files: int
    part: bool = False
    deaths: int = 0
    failures: int = 0
    done: bool = False


@dataclass(eq=False)
class _Member:
    host: Host
    actor: Any
    starting: Any  # reference to what `start` returns; None since it did
    since: float
    tasks: deque[tuple[Any, _Task]] = field(default_factory=deque)

    @property
    def reference(self) -> Any:
        """What is waited for: the start, or the oldest unit."""
        return self.starting if self.starting is not None else self.tasks[0][0] if self.tasks else None


def places(host: Host, gpus: float) -> int:
    """Workers that a host has room for: one for each share of `gpus` GPUs; without GPUs one, which has all its CPUs."""
    return int(host.gpus / gpus + 1e-6) if gpus else int(host.cpus >= 1)


class Crew:
    """Workers that do units; a context manager.

    Args:
        session: with the cluster.
        job: what they do.
        folder: of the units.
        gpus: of a worker; 0: it computes on CPUs.
        decoding: processes of a worker that decode; None: one a CPU, at most 16.
        note: told what is going on.

    Attributes:
        notes: what a user should hear of in the end.
        embedded: contents that were embedded by units that ended well.
    """

    def __init__(
        self,
        session: Session,
        job: Job,
        folder: UnitFolder,
        *,
        gpus: float = 0.0,
        decoding: int | None = None,
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.session, self.job, self.folder, self.gpus, self.decoding = session, job, folder, gpus, decoding
        self.ray, self.note = session.ray, note
        self.notes: list[str] = []
        self.embedded = 0
        self._members: list[_Member] = []
        self._queue: deque[_Task] = deque()  # units to be handed out before those of the work list
        self._line: deque[_Task] = deque()  # all that were handed out or come again, in the order of the work list
        self._refused: dict[str, str] = {}  # node → why it takes no part
        self._failed_starts: Counter[str] = Counter()
        self._looked = self._manned = float("-inf")
        self._deaths_in_a_row = 0
        self._lost: set[str] = set()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *error: object) -> None:
        for member in self._members:
            self._dismiss(member)
        self._members.clear()

    def _dismiss(self, member: _Member) -> None:
        if not self.session.is_lost:
            try:
                self.session.do(lambda: self.ray.kill(member.actor, no_restart=True))
            except Exception:
                return  # it is dead already

    def work(self, units: Iterable[Unit]) -> Iterator[Result]:
        """Has units done, and yields what came of them in their order (parts of a unit in its place).

        Raises:
            BrivlSearchError: the head is lost, no host can do the work, or a unit fails again and again.
        """
        coming = iter(units)
        self._manned = time.monotonic()
        exhausted = False
        while True:
            if time.monotonic() - self._looked > LOOK_S:
                self._look()
            exhausted = self._hand_out(coming, exhausted)
            self._wait()
            while self._line and self._line[0].done:
                task = self._line[0]
                result = self.folder.read(task.name)
                if result is None:  # torn by a crash of the storage: again
                    task.done = False
                    self._queue.appendleft(task)
                    break
                self._line.popleft()
                yield result
            if exhausted and not self._line:
                return

    # -- who is there --------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Starts workers where there is room for more."""
        hosts = self.session.hosts()
        self._looked = now = time.monotonic()
        there = {host.node for host in hosts}
        for host in hosts:
            if host.node in self._refused:
                continue
            have = sum(member.host.node == host.node for member in self._members)
            wanted = places(host, self.gpus)
            for _ in range(wanted - have):
                self._members.append(self.session.do(partial(self._start, host, wanted)))
        for member in list(self._members):
            if member.host.node not in there:  # before Ray tells each of its workers
                self._bury(member, "its host is lost")
        if any(member.starting is None for member in self._members):
            self._manned = now
        self._check(hosts, now)
        ready = {member.host.node for member in self._members if member.starting is None}
        self.note(f"images on {len(ready)} host{'s' if len(ready) != 1 else ''}")

    def _check(self, hosts: list[Host], now: float) -> None:
        """Raises BrivlSearchError: nobody works, and nobody will."""
        if self._members:
            if now - self._manned > BUSY_S:
                raise BrivlSearchError(
                    f"no worker has started for {BUSY_S:.0f} s: the cluster's CPUs or GPUs are taken by others: wait "
                    "for them, or add hosts"
                )
            return
        if self._refused and all(host.node in self._refused for host in hosts if places(host, self.gpus)):
            raise BrivlSearchError(next(iter(self._refused.values())))
        if now - self._manned > (PATIENCE_S if self._lost else LOOK_S):
            wanted = f"{self.gpus:g} GPUs" if self.gpus else "a CPU"
            raise BrivlSearchError(
                f"no host of the cluster at {self.session.address} has {wanted} for a worker: start Ray on one that "
                f"has (`ray start --address {self.session.address}`) and run the same command again; what was finished "
                "is kept"
            )

    def _start(self, host: Host, wanted: int) -> _Member:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        cpus = host.cpus / wanted
        share = max(1, int(cpus))
        actor = (
            self.ray.remote(Worker)
            .options(
                num_cpus=int(cpus) or cpus,  # Ray lets the actor's libraries use so many threads
                num_gpus=self.gpus,
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(host.node, soft=False),
            )
            .remote(self.job, min(share, MOST_DECODING) if self.decoding is None else self.decoding)
        )
        return _Member(host, actor, actor.start.remote(), time.monotonic())

    def _refuse(self, host: Host, why: str) -> None:
        if host.node not in self._refused:
            self._refused[host.node] = f"host {host.name} cannot take part: {why}"
            self.notes.append(self._refused[host.node])

    # -- who does what -------------------------------------------------------------------------------------------

    def _hand_out(self, coming: Iterator[Unit], exhausted: bool) -> bool:
        """Gives every worker a unit, and a second to go on with; says whether the work list has come to its end."""
        ready = [member for member in self._members if member.starting is None]
        for most in (1, 2):
            for member in ready:
                if len(member.tasks) >= most:
                    continue
                if self._queue:
                    task = self._queue.popleft()
                elif exhausted:
                    continue
                else:
                    unit = next(coming, None)
                    if unit is None:
                        exhausted = True
                        continue
                    task = _Task(self.folder.put(unit), len(unit.files))
                    self._line.append(task)
                member.tasks.append((self.session.do(partial(member.actor.embed.remote, task.name)), task))
        return exhausted

    def _wait(self) -> None:
        waited = {member.reference: member for member in self._members if member.reference is not None}
        if not waited:
            time.sleep(0.1)
            self.session.check()
            return
        done, _ = self.session.do(lambda: self.ray.wait(list(waited), num_returns=1, timeout=1.0))
        for reference in done:
            self._ended(waited[reference], reference)

    def _ended(self, member: _Member, reference: Any) -> None:
        try:
            outcome = self.session.do(lambda: self.ray.get(reference, timeout=30.0))
        except self.ray.exceptions.RayError as error:
            self._bury(member, _first_line(error))
            return
        if member.starting is not None:
            member.starting = None
            if outcome:
                self._refuse(member.host, outcome)
                self._members.remove(member)
                self._dismiss(member)
            return
        _, task = member.tasks.popleft()
        embedded, problem = outcome
        if problem:
            task.failures += 1
            if task.failures >= FAILURES:
                raise BrivlSearchError(
                    f"a unit of {task.files:,} pictures failed {FAILURES} times, at last on {problem}; what was "
                    "finished is kept, the same command goes on from there"
                )
            self._queue.appendleft(task)
            return
        self._deaths_in_a_row = 0
        self.embedded += embedded
        task.done = True

    def _bury(self, member: _Member, why: str) -> None:
        """A worker is dead or out of reach: others do what it had to do."""
        self._members.remove(member)
        self._dismiss(member)
        self._looked = time.monotonic() - LOOK_S + SOON_S
        host = member.host
        if member.starting is not None:
            if any(other.node == host.node for other in self.session.hosts()):
                self._failed_starts[host.node] += 1
            if self._failed_starts[host.node] >= STARTS:
                self._refuse(host, f"its workers die before they have started ({why})")
            return
        self._lost.add(host.name)
        self._deaths_in_a_row += 1
        if self._deaths_in_a_row > IN_A_ROW:
            raise BrivlSearchError(
                f"{IN_A_ROW} workers died one after the other with nothing finished, at last on {host.name}: {why}"
            )
        blamed = True  # the oldest unit was under way, the others had not begun
        for _, task in member.tasks:
            if blamed:
                task.deaths += 1
                blamed = False
            self._again(task, why)

    def _again(self, task: _Task, why: str) -> None:
        if self.folder.is_done(task.name):  # it ended well, and nobody heard of it
            task.done = True
            return
        most = DEATHS.get(task.files, PART_DEATHS if task.part else UNIT_DEATHS)
        if task.deaths < most:
            self._queue.appendleft(task)
            return
        unit = self.folder.get(task.name)
        if task.files == 1:
            detail = f"{task.deaths} workers died of it ({why})"
            rows = [Embedded(Decoded(file, "", None, reason=WORKER_DIED, detail=detail), None) for file in unit.files]
            self.folder.write(task.name, unit.limit, rows)
            task.done = True
            return
        parts = [_Task(self.folder.put(half), len(half.files), part=True) for half in unit.halves()]
        at = self._line.index(task)
        self._line.rotate(-at)
        self._line.popleft()
        self._line.extendleft(reversed(parts))
        self._line.rotate(at)
        self._queue.extendleft(reversed(parts))


def _first_line(error: BaseException) -> str:
    """What Ray says of a dead worker, without its pages of advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next(
        (line for line in lines if "cause" in line.lower() or "memory" in line.lower()), lines[0] if lines else ""
    )
    return told[:200] or type(error).__name__
