"""What a cluster costs and brings: a build on one host beside one without a cluster, and on 1, 2 and 3 hosts.

    sudo python benchmarks/cluster.py build [--pictures 20000] [--scaling 9000]

Hosts are network namespaces of this machine, of one CPU each, which takes root. So that scaling is measured and not
this machine's cores, embedding is a sleep of the length that a GPU would take, around a small projection
(`tests.support.stub`). Seconds are those of a whole command. Pictures a second are as the program says them: with a
cluster the start of its workers counts, without one the start of the encoder does not.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.cluster_stub import install_stub
from tests.support.clusters import Hosts, environment
from tests.support.folders import REPO
from tests.support.pictures import write_corpus

BATCH = 64


def run(words: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Seconds of a whole build, and pictures a second of its embedding."""
    began = time.monotonic()
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode:
        raise SystemExit(done.stderr)
    found = re.search(r"([\d,.]+) images/s over", done.stderr)
    return seconds, float(found[1].replace(",", "")) if found else 0.0


def arguments(photos: Path, index: Path, *more: str) -> list[str]:
    shutil.rmtree(index, ignore_errors=True)
    return [
        *("build-index", str(photos), "--index", str(index), "--encoder", "stub", "--index-type", "exact"),
        *("--batch-size", str(BATCH), "--workers", "1", *more),
    ]


def build(pictures: int, scaling: int, folder: Path) -> None:
    """Both measurements of a build."""
    install_stub(folder / "plugin")
    path = f"{REPO}{os.pathsep}{folder / 'plugin'}"
    print(f"drawing {pictures:,} pictures", flush=True)
    write_corpus(folder / "many", pictures, size=(64, 64), with_captions=False)
    few = folder / "few" / "images"
    few.mkdir(parents=True)
    for photo in sorted((folder / "many" / "images").iterdir())[:scaling]:
        os.link(photo, few / photo.name)
    # A batch in 0.128 s is 500 pictures a second; in 0.4 s, 160.
    env = {"PYTHONPATH": path, "STUB_SLEEP": "0.128"}
    hosts = Hosts("a", "b", "c", env=env)
    program = [sys.executable, "-m", "brivl_search"]
    try:
        hosts.start("a")
        at = ["--cluster", hosts.address]
        plain, rate = run([*program, *arguments(folder / "many", folder / "i")], environment(**env))
        print(f"without a cluster: {plain:.1f} s, {rate:,.0f} pictures/s", flush=True)
        words = hosts.command("a", *program, *arguments(folder / "many", folder / "i", *at))
        spread, rate = run(words, environment(**env))
        print(f"one host:          {spread:.1f} s, {rate:,.0f} pictures/s; {spread / plain - 1:+.1%}", flush=True)
        hosts.kill("a")
        hosts.env["STUB_SLEEP"] = "0.4"
        first = 0.0
        for number, name in enumerate(hosts.names, 1):
            hosts.start(name)
            words = hosts.command("a", *program, *arguments(folder / "few", folder / "i", *at))
            seconds, rate = run(words, environment(**hosts.env))
            first = first or rate
            print(
                f"{number} hosts: {seconds:.1f} s, {rate:,.0f} pictures/s, efficiency {rate / first / number:.2f}",
                flush=True,
            )
    finally:
        hosts.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["build"])
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--scaling", type=int, default=9_000)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="cluster-bench-"))
    try:
        build(given.pictures, given.scaling, folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
