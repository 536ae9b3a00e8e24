"""Fuzz the caption readers and the image decoder for as long as you like, with new cases every time.

    python tests/soak/fuzz.py --minutes 10 [--seed 0]

Ends with 1 at the first case that goes wrong and names it; the seed makes it come again.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.fuzzing import caption_file, check_captions, fuzz_pictures_apart, picture_seeds

TURN = 5.0  # seconds for each kind of file before the next has its turn


def fuzz_captions(seed: int, folder: Path, seconds: float) -> Counter[str]:
    reasons: Counter[str] = Counter()
    ends = time.monotonic() + seconds
    number = 0
    while time.monotonic() < ends:
        content = caption_file(random.Random(f"{seed} {number}"))
        try:
            reasons += check_captions(folder / "captions.jsonl", content)
        except Exception:
            (folder / "captions.bad").write_bytes(content)
            print(f"captions, case {seed} {number}: kept as {folder / 'captions.bad'}")
            raise
        number += 1
    return reasons


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    ends = time.monotonic() + 60 * given.minutes
    seen: dict[str, Counter[str]] = {kind: Counter() for kind in ("captions", *picture_seeds())}
    slowest, grown = (0.0, ""), 0.0
    seed = given.seed
    print(f"seed {seed}, files in {folder}")
    while time.monotonic() < ends:
        for kind in seen:
            turn = min(TURN, ends - time.monotonic())
            if turn <= 0:
                break
            if kind == "captions":
                seen[kind] += fuzz_captions(seed, folder, turn)
                continue
            report = fuzz_pictures_apart(kind, sys.maxsize, seed, folder, seconds=turn, timeout=turn + 60)
            seen[kind] += Counter(report["reasons"])
            slowest = max(slowest, (report["slowest"], report["slowest_case"]))
            grown = max(grown, report["grown_mb"])
        seed += 1
    for kind, reasons in seen.items():
        counts = ", ".join(f"{n:,} {reason or 'decoded'}" for reason, n in reasons.most_common())
        print(f"{kind}: {reasons.total():,}: {counts}")
    print(f"slowest picture {1000 * slowest[0]:.0f} ms ({slowest[1]}); at most {grown:.0f} MB more memory")


if __name__ == "__main__":
    main()
