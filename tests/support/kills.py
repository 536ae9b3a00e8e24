"""Changes to an index killed with SIGKILL, at random instants or at each of its phases; for the tests and the soak.

    python -m tests.support.kills FOLDER SEED KILLS SECONDS

Steps are killed once at the beginning of each phase; then at random, until so many kills landed or so many seconds
passed.

One lean process imports everything once and forks a child for every step. It never opens an LMDB file nor calls FAISS
itself, so children start clean, and a kill costs what the killed step and its examination take: about 0.2 s.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import random
import re
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # before NumPy: a process with threads cannot fork

import faiss  # noqa: F401
import lmdb  # noqa: F401
import numpy as np
import numpy.random
from PIL import Image

from brivl_search.corpus import images
from brivl_search.errors import UsageError
from brivl_search.index import EncoderInfo
from brivl_search.ingest import maintenance
from brivl_search.ingest import run as building
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.run import add, build_index
from brivl_search.transfer.imports import import_vectors
from tests.support.older import make_older
from tests.support.pictures import write_lines
from tests.support.published import State, state
from tests.support.stub import StubEncoder

FIRST, MORE = 300, 60  # pictures of the index, pictures to add; IVF-PQ wants 256
OPTIONS = BuildOptions(index_type="ivfpq", workers=0, batch_size=16, shard_rows=128)


# -- what is changed ---------------------------------------------------------------------------------------------


class Told:
    """A progress that notes in a file how far a step came, one line a phase.

    Args:
        path: of the file.
        die_at: the phase at which the process kills itself, the place in the list of those it told.
    """

    def __init__(self, path: Path, die_at: int | None = None) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.told, self.die_at = 0, die_at

    def __call__(self, line: str) -> None:
        os.write(self.file, f"{line.split(':')[0]}\n".encode())
        if self.told == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.told += 1

    def phase(self, name: str, total: int | None) -> None:
        self(name)

    def advance(self, steps: int) -> None: ...

    def note(self, line: str) -> None:
        self(line)


def write_pictures(folder: Path, numbers: range, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        noise = random.Random(f"{seed} {number}").randbytes(8 * 8 * 3)
        Image.frombytes("RGB", (8, 8), noise).save(folder / f"{number:04d}.png")


def write_captions(folder: Path) -> None:
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    write_lines(folder / "captions.jsonl", [{"image": name, "zh": f"说明 {name}"} for name in names])


def run(step: str, site: Path, index: Path, told: Told) -> None:
    """One step, as the command line would do it."""
    building.FLUSH_SECONDS = -1.0
    building.TUNING_QUERIES = maintenance.QUERIES = 64
    if step in ("build", "update"):
        build_index([site / "a"], index, StubEncoder(), OPTIONS, told)
    elif step == "add":
        add([site / "b"], index, StubEncoder(), OPTIONS, told)
    elif step == "remove":
        try:
            maintenance.remove(index, under=[site / "a" / "part"], progress=told)
        except UsageError as error:  # the kill came after it was published
            assert "nothing was removed" in str(error)
    elif step == "compact":
        maintenance.compact(index, progress=told)
    elif step == "move":
        try:
            maintenance.move(index, site / "a", site / "moved", progress=told)
        except UsageError as error:  # the kill came after it was published
            assert "no source of the index" in str(error)
    elif step == "migrate":
        build_index([], index, StubEncoder(), OPTIONS, told)
    elif step in ("first import", "import"):
        vectors = site / ("v1.npy" if step == "first import" else "v2.npy")
        stub = StubEncoder()
        who = EncoderInfo(stub.name, stub.fingerprint, stub.dim)
        import_vectors(
            vectors, site / "v.jsonl", "image", index, who, stub.encode_texts, lambda rows: told(f"importing {rows}")
        )
    else:
        raise ValueError(step)


STEPS = ("build", "update", "add", "remove", "compact", "move", "migrate", "import")


def prepare(site: Path) -> None:
    """Pictures, and for each step the index it begins with: SITE/before/STEP."""
    write_pictures(site / "a" / "part", range(FIRST // 3))
    write_pictures(site / "a" / "rest", range(FIRST // 3, FIRST))
    write_pictures(site / "b", range(MORE), seed=1)
    write_captions(site / "a")
    write_captions(site / "b")
    told = Told(site / "told")
    before = site / "before"
    run("build", site, before / "add", told)
    for step in ("update", "remove", "compact", "move", "migrate"):
        shutil.copytree(before / "add", before / step)
    shutil.copytree(site / "a", site / "moved")
    make_older(before / "migrate")
    rng = np.random.default_rng(9)
    for name in ("v1", "v2"):
        np.save(site / f"{name}.npy", rng.standard_normal((FIRST, StubEncoder().dim)).astype(np.float32))
    write_lines(site / "v.jsonl", [{"path": f"v/{n}.jpg", "content": f"content-{n}"} for n in range(FIRST)])
    run("first import", site, before / "import", told)
    for step in ("add", "remove"):  # dead rows and small shards
        run(step, site, before / "compact", told)
    for path in sorted((site / "a" / "rest").iterdir())[::9]:
        path.unlink()
    write_pictures(site / "a" / "rest", range(FIRST // 3, FIRST // 3 + 30), seed=2)
    write_pictures(site / "a" / "part", range(FIRST, FIRST + 40), seed=2)
    write_captions(site / "a")


# -- children ----------------------------------------------------------------------------------------------------


def forked(work: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function that ran in a child.

    Raises:
        AssertionError: the child failed, with its traceback.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        _child(lambda: _send(writing, (True, work(*arguments))), writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        raw = pipe.read()
    status = os.waitpid(pid, 0)[1]
    if not raw:
        raise AssertionError(f"a child ended with status {status}")
    fine, result = pickle.loads(raw)
    if not fine:
        raise AssertionError(result)
    return result


def _send(writing: int, result: tuple[bool, Any]) -> None:
    with os.fdopen(writing, "wb") as pipe:
        pickle.dump(result, pipe)


def _child(work: Callable[[], Any], writing: int | None = None) -> None:
    """Run in a child that has just been forked, and end it."""
    code = 0
    try:
        work()
    except BaseException:
        code = 1
        if writing is not None:
            _send(writing, (False, traceback.format_exc()[-4000:]))
        else:
            traceback.print_exc()
    os._exit(code)


def start(step: str, site: Path, index: Path, die_at: int | None = None) -> int:
    """Begin a step in a child, which may kill itself at a phase; its process number."""
    (site / "told").unlink(missing_ok=True)
    pid = os.fork()
    if not pid:
        _child(lambda: run(step, site, index, Told(site / "told", die_at)))
    return pid


def phases(site: Path) -> list[str]:
    """What the last step told."""
    told = site / "told"
    return told.read_text().splitlines() if told.exists() else []


def kill_after(pid: int, seconds: float) -> bool:
    """Whether the child was still alive to be killed; one that fails by itself is an error."""
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    assert status == 0, f"a step failed by itself: {status}"
    return False


# -- the run -----------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What a run did: kills that landed by step and by how far it had come, and what was found after them."""

    kills: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    seconds: float = 0.0

    def facts(self) -> dict[str, Any]:
        return {**self.__dict__, "total": self.kills.total()}


class Run:
    """Kills steps until told to stop; `failure` tells how to see a failing round again."""

    def __init__(self, site: Path, seed: int) -> None:
        self.site, self.seed, self.tally = site, seed, Tally()
        forked(prepare, site)
        self.before: dict[str, State] = {}
        self.after: dict[str, State] = {}
        self.takes: dict[str, float] = {}
        self.phases: dict[str, list[str]] = {}
        for step in STEPS:
            index = self._fresh(step)
            self.before[step] = forked(state, index)
            (site / "told").unlink(missing_ok=True)
            started = time.monotonic()
            forked(run, step, site, index, Told(site / "told"))
            self.takes[step] = time.monotonic() - started
            self.phases[step] = phases(site)
            self.after[step] = forked(state, index)
            assert self.after[step]["leftovers"] == () and self.after[step] != self.before[step]

    def _fresh(self, step: str) -> Path:
        index = self.site / "index"
        shutil.rmtree(index, ignore_errors=True)
        source = self.site / "before" / step
        if source.exists():
            shutil.copytree(source, index)
        return index

    def until(self, kills: int, seconds: float) -> Tally:
        started = time.monotonic()
        number = 0
        while self.tally.kills.total() < kills and time.monotonic() - started < seconds:
            self._round(number, STEPS[number % len(STEPS)])
            number += 1
            self.tally.seconds = time.monotonic() - started
        return self.tally

    def _round(self, number: int, step: str) -> None:
        """Kill a step, perhaps its repetition too; then let it finish and compare with the undisturbed twin."""
        rng = random.Random(f"{self.seed} {number}")
        index = self._fresh(step)
        delays: list[float] = []
        try:
            while len(delays) < 6 and (not delays or rng.random() < 0.7):
                delays.append(rng.uniform(0, 1.1 * self.takes[step]))
                killed = kill_after(start(step, self.site, index), delays[-1])
                self._examine(step, index)
                self.takes[step] *= 1.02 if killed else 0.93  # so that most land, and some at the very end
                if not killed:
                    break
                self.tally.kills[step] += 1
                self.tally.reached[(phases(self.site) or ["start"])[-1]] += 1
            self._finish(step, index)
        except AssertionError as error:
            how = f"seed {self.seed}, round {number}: {step} killed after {[round(d, 4) for d in delays]} s"
            raise self._failed(how, index, f"failed-{number}") from error

    def at_each_phase(self) -> Tally:
        """Steps killed as a phase begins, then run again to their end: at each phase once, at publication each step."""
        met: set[str] = set()
        for step in STEPS:
            for number, name in enumerate(self.phases[step]):
                kind = re.sub(r"\d+", "N", name)
                if kind in met and not kind.startswith("publish"):
                    continue
                met.add(kind)
                index = self._fresh(step)
                try:
                    status = os.waitpid(start(step, self.site, index, number), 0)[1]
                    assert os.WIFSIGNALED(status), f"the step ended with {status}, phases {phases(self.site)}"
                    self._examine(step, index)
                    self._finish(step, index)
                except AssertionError as error:
                    raise self._failed(f"{step} killed at {name!r}", index, f"failed-{step}-{number}") from error
                self.tally.kills[step] += 1
                self.tally.reached[name] += 1
        return self.tally

    def _finish(self, step: str, index: Path) -> None:
        """Run again, a killed step ends as its undisturbed twin did."""
        forked(run, step, self.site, index, Told(self.site / "told"))
        found = forked(state, index)
        for key, value in self.after[step].items():
            assert found[key] == value, f"finished, the {key} differ from the twin's"
        self.tally.finished += 1

    def _failed(self, how: str, index: Path, name: str) -> AssertionError:
        kept = self.site.with_name(f"{self.site.name}-{name}")
        shutil.copytree(index, kept, dirs_exist_ok=True)
        return AssertionError(f"{how}; the index is kept as {kept}: {sys.exception()}")

    def _examine(self, step: str, index: Path) -> None:
        """After a kill: all of the old generation or all of the new one, and it answers as it should."""
        found = forked(state, index)
        for name, expected in (("old", self.before[step]), ("new", self.after[step])):
            if all(found.get(what) == expected.get(what) for what in ("items", "sources", "shards")):
                assert found.get("found") == expected.get("found"), f"the {name} generation answers differently"
                self.tally.found[name] += 1
                return
        raise AssertionError(f"neither the old generation nor the new one: {str(found)[:2000]}")


def main() -> None:
    folder, seed, kills, seconds = sys.argv[1:]
    images.codecs.pillow()
    gc.freeze()  # a child that collects does not touch, and so copy, all that was imported
    site = Path(folder) / "site"
    site.mkdir()
    try:
        killing = Run(site, int(seed))
        at_phases, killing.tally = killing.at_each_phase(), Tally()
        at_random = killing.until(int(kills), float(seconds))
        print(json.dumps({"phases": at_phases.facts(), "random": at_random.facts()}, ensure_ascii=False))
    except AssertionError as error:
        print(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
