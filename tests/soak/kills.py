"""Kill changes to an index at random instants for as long as you like, in ever new settings.

    python tests/soak/kills.py --minutes 10 [--seed 0] [--folder /dev/shm]

Ends with 1 at the first kill that leaves anything wrong: it names the round and keeps the index.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support import kills

TURN = 60.0  # seconds in one setting


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    ends = time.monotonic() + 60 * given.minutes
    total: dict[str, Counter[str]] = {name: Counter() for name in ("kills", "reached", "found")}
    seed, finished = given.seed, 0
    kills.images.codecs.pillow()
    while time.monotonic() < ends:
        rng = random.Random(seed)
        kills.OPTIONS = replace(
            kills.OPTIONS,
            index_type=rng.choice(("ivfpq", "ivfpq", "exact")),
            shard_rows=rng.choice((40, 128, 1000)),
            batch_size=rng.choice((4, 16, 64)),
        )
        site = Path(tempfile.mkdtemp(prefix=f"kills-{seed}-", dir=given.folder))
        try:
            tally = kills.Run(site, seed).until(sys.maxsize, min(TURN, ends - time.monotonic()))
        except AssertionError as error:
            sys.exit(f"{kills.OPTIONS}\n{error}")
        shutil.rmtree(site)
        for name, counter in total.items():
            counter.update(getattr(tally, name))
        finished += tally.finished
        print(f"seed {seed}: {tally.kills.total()} kills", flush=True)
        seed += 1
    print(f"{total['kills'].total():,} kills: " + ", ".join(f"{n} {step}" for step, n in total["kills"].items()))
    print(f"found: {dict(total['found'])}; {finished} finished as their twins did")
    print("killed at: " + ", ".join(f"{where} {n}" for where, n in sorted(total["reached"].items())))


if __name__ == "__main__":
    main()
