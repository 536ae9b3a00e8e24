"""Writes how well an encoder thinks that text and picture of every pair belong together; nothing is dropped.

    python -m train.pairs.score out/pairs.jsonl out/pairs.scored.jsonl brivl-mini

`score` is the cosine of the picture and the nearest of its texts, null where the picture cannot be read any more. Weak
pairs are wanted in training (they are most of the web), so this ranks: to look at, to sort by, or to weigh. Killed and
started again it goes on after the last whole line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from brivl_search.corpus.decode_pool import decode_all, default_workers
from brivl_search.corpus.walk import ImageFile
from brivl_search.encoders import load_encoder
from brivl_search.encoders.base import encode_queries
from brivl_search.errors import BrivlSearchError, UsageError

BATCH = 64


def score(pairs: Path, out: Path, encoder_name: str, *, workers: int) -> int:
    """Scores every line of `pairs` into `out`; the number of pairs.

    Raises:
        UsageError: there is no such file. EncoderError: there is no such encoder.
    """
    if not pairs.is_file():
        raise UsageError(f"{pairs}: no such file")
    encoder = load_encoder(encoder_name)
    partial = out.with_name(f"{out.name}.{encoder.fingerprint[:12]}.partial")
    done = _whole_lines(partial)
    waiting: deque[dict[str, Any]] = deque()

    def files() -> Iterator[ImageFile]:
        with pairs.open(encoding="utf-8", errors="surrogateescape") as lines:
            for line in itertools.islice(lines, done, None):
                row = json.loads(line)
                waiting.append(row)
                yield ImageFile(row["image"], 0, 0)

    with partial.open("a", encoding="utf-8", errors="surrogateescape") as output:
        decoded = iter(decode_all(files(), encoder.pixels, workers=workers))
        while batch := [(waiting.popleft(), one.pixels) for one in itertools.islice(decoded, BATCH)]:
            for row, value in zip([row for row, _ in batch], _cosines(encoder, batch), strict=True):
                output.write(json.dumps({**row, "score": value}, ensure_ascii=False) + "\n")
            output.flush()
            done += len(batch)
    os.replace(partial, out)
    return done


def _cosines(encoder: Any, batch: list[tuple[dict[str, Any], np.ndarray | None]]) -> list[float | None]:
    readable = [i for i, (_, pixels) in enumerate(batch) if pixels is not None]
    out: list[float | None] = [None] * len(batch)
    if not readable:
        return out
    images = encoder.encode_images(np.stack([pixels for _, pixels in batch if pixels is not None]))
    texts = [[*batch[i][0].get("zh", []), *batch[i][0].get("en", [])] for i in readable]
    vectors = encode_queries(encoder, [text for group in texts for text in group])
    ends = np.cumsum([len(group) for group in texts])
    for row, (i, end, group) in enumerate(zip(readable, ends, texts, strict=True)):
        out[i] = round(float((vectors[end - len(group) : end] @ images[row]).max()), 4)
    return out


def _whole_lines(path: Path) -> int:
    """Lines of an output that was cut off; the rest after the last whole one is removed."""
    if not path.is_file():
        return 0
    lines, end = 0, 0
    with path.open("r+b") as handle:
        for line in handle:
            if not line.endswith(b"\n"):
                break
            lines, end = lines + 1, end + len(line)
        handle.truncate(end)
    return lines


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("encoder")
    parser.add_argument("--workers", type=int, default=default_workers(), help="decoding processes")
    args = parser.parse_args(argv)
    try:
        count = score(args.pairs, args.out, args.encoder, workers=args.workers)
    except BrivlSearchError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    print(f"{args.out}: {count:,} pairs scored by {args.encoder}")


if __name__ == "__main__":
    main()
