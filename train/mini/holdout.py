"""Writes the held-out validation photos of a dataset as a folder that `brivl-search eval --dataset` takes.

    python -m train.mini.holdout ../shared/data/flickr8k-cn 500 /tmp/flickr8k-cn-val
    brivl-search eval --dataset /tmp/flickr8k-cn-val --captions zh_mt_google

Only a captions.jsonl is written, its last N rows with absolute image paths; no photo is copied.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def write_holdout(source: Path, count: int, target: Path) -> int:
    """Returns the number of rows written.

    Args:
        source: folder with captions.jsonl.
        count: how many of its last rows.
        target: folder to write into; made if needed.
    """
    lines = (source / "captions.jsonl").read_text(encoding="utf-8").splitlines()[-count:]
    target.mkdir(parents=True, exist_ok=True)
    with (target / "captions.jsonl").open("w", encoding="utf-8") as out:
        for line in lines:
            row = json.loads(line)
            row["image"] = str((source / row["image"]).resolve())
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    return len(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    print(f"{write_holdout(args.source, args.count, args.target)} rows in {args.target / 'captions.jsonl'}")
