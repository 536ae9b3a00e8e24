"""Builds on a cluster of two hosts, with actors, hosts, drivers and heads killed at random instants.

    sudo python benchmarks/cluster_soak.py --kills 30 [--seed 0] [--pictures 240]

Hosts are network namespaces, which takes root. After each build: every item is there once, the index is sound, its
shards and answers are those of a build without a cluster, and no kill cost more than the units that were under way.
Ends with 1 at the first build of which that is not true.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.building import build
from tests.support.cluster_stub import install_stub
from tests.support.clusters import Hosts
from tests.support.folders import REPO
from tests.support.pictures import write_corpus
from tests.support.published import state
from tests.support.stub import StubEncoder

BATCH = 8
WEIGHTS = {"actor": 10, "driver": 6, "host": 5, "head": 2}
UNDER_WAY = {"actor": 1, "driver": 2, "host": 2, "head": 2}  # units, of two workers; a host may have the driver
STUB_SLEEP = "0.25"  # seconds a batch


class Soak:
    """Two hosts, and builds on them.

    Args:
        folder: of the pictures and the indexes.
        pictures: of a build.
        rng: says when, and what is killed.
    """

    def __init__(self, folder: Path, pictures: int, rng: random.Random) -> None:
        self.folder, self.rng, self.pictures = folder, rng, pictures
        self.kills: Counter[str] = Counter()
        self.log = folder / "log"
        install_stub(folder / "plugin")
        write_corpus(folder / "photos", pictures)
        build(folder / "photos", folder / "alone", StubEncoder())
        self.wanted = state(folder / "alone")
        path = f"{REPO}{os.pathsep}{folder / 'plugin'}"
        self.hosts = Hosts("a", "b", env={"PYTHONPATH": path, "STUB_SLEEP": STUB_SLEEP, "STUB_LOG": str(self.log)})
        for name in self.hosts.names:
            self.hosts.start(name)

    def driver(self, index: Path) -> subprocess.Popen[str]:
        """A build, on the first host or the second."""
        return self.hosts.popen(
            self.rng.choice(self.hosts.names),
            *("build-index", str(self.folder / "photos"), "--index", str(index), "--encoder", "stub"),
            *("--cluster", self.hosts.address, "--batch-size", str(BATCH), "--workers", "1"),
        )

    def kill(self, kind: str, driver: subprocess.Popen[str]) -> bool:
        """Kills one thing; False if there is none."""
        if kind == "actor":
            actors = self.hosts.actors(*self.hosts.names)
            if not actors:
                return False
            os.kill(self.rng.choice(actors), signal.SIGKILL)
        elif kind == "driver":
            driver.kill()
        else:
            self.hosts.kill("a" if kind == "head" else "b")
        return True

    def one(self, number: int, most: int) -> list[str]:
        """One build with up to `most` kills in it; what is wrong with it."""
        index = self.folder / f"index-{number}"
        self.log.write_text("")
        killed: list[str] = []
        driver = self.driver(index)
        tries = 1
        while True:
            pause = self.rng.uniform(1.0, 9.0)
            try:
                driver.wait(timeout=pause if len(killed) < most else 240)
            except subprocess.TimeoutExpired:
                if len(killed) >= most:
                    driver.kill()
                    return ["the build does not come to an end"]
                kind = self.rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
                if self.kill(kind, driver):
                    killed.append(kind)
                    self.kills[kind] += 1
                    self.repair(kind, driver)
                continue
            _, err = driver.communicate()
            if driver.returncode == 0:
                break
            if "Traceback" in err or tries > 3 * most + 3:
                return [f"exit {driver.returncode}: {err[-2000:]}"]
            tries += 1
            driver = self.driver(index)
        return self.check(index, killed, tries)

    def repair(self, kind: str, driver: subprocess.Popen[str]) -> None:
        """Brings a lost host back after a while, and a lost head at once, with all its hosts."""
        if kind == "host":
            back = threading.Timer(self.rng.uniform(0.0, 4.0), self.hosts.start, ["b"])
            back.start()
            back.join()
        elif kind == "head":
            driver.wait(timeout=100)  # it says so itself, or died with its host
            self.hosts.kill("b")
            for name in self.hosts.names:
                self.hosts.start(name)

    def check(self, index: Path, killed: list[str], tries: int) -> list[str]:
        """What is wrong with a finished build."""
        wrong = []
        found = state(index)  # asserts that it is sound and has each item once
        for part, value in self.wanted.items():
            if part not in ("sources", "leftovers") and found[part] != value:
                wrong.append(f"{part} differ from those of a build without a cluster")
        embedded = sum(map(int, self.log.read_text().split()))
        unit = max(1, self.pictures // 4 // BATCH) * BATCH  # the largest, for two workers
        allowed = self.pictures + unit * sum(UNDER_WAY[kind] for kind in killed)
        if not self.pictures <= embedded <= allowed:
            wrong.append(f"{embedded} pictures were embedded, more than {allowed}, after {killed}")
        if (index / "units").exists():
            wrong.append("unit files are left")
        print(f"{index.name}: {len(killed)} kills ({' '.join(killed)}), {tries} runs, {embedded} embedded", flush=True)
        if not wrong:
            shutil.rmtree(index)
        return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--pictures", type=int, default=240)
    given = parser.parse_args()
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="cluster-soak-"))
    soak = Soak(folder, given.pictures, random.Random(given.seed))
    print(f"seed {given.seed}, {folder}", flush=True)
    try:
        number = 0
        while (left := given.kills - soak.kills.total()) > 0:
            number += 1
            if wrong := soak.one(number, min(left, 6)):
                print(f"build {number}: " + "; ".join(wrong), file=sys.stderr)
                return 1
    finally:
        soak.hosts.close()
    print(
        f"{number} builds, {soak.kills.total()} kills {dict(soak.kills)}: all sound, {time.monotonic() - began:.0f} s"
    )
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
