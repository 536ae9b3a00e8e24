"""Packs images and captions into shards for `train.pretrain`: large files, read at their places, instead of millions.

    python -m train.pairs.pack photos/ packed/                         # photos/captions.jsonl; tars of 10,000 pairs
    python -m train.pairs.pack news.jsonl baike.jsonl packed/ --shards lmdb --per-shard 20000
    python -m train.pairs.pack prepared/pairs.jsonl packed/ --max-side 640   # shrink what is larger; JPEG

A source is a folder with `captions.jsonl`, or such a file: JSON lines with `image` and caption fields (all fields that
`--fields` names; by default zh, en and captions), as `train.pairs.prepare` writes them. Every image is decoded once,
in processes that may crash, so that training never meets one that cannot be read. Shards appear whole; a packing that
was killed goes on after its last shard when the same command is given again, and ends with the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brivl_search.corpus.atomic import appearing
from brivl_search.corpus.captions import BadLine, CaptionLine, read_captions
from brivl_search.corpus.decode_pool import Decoded, decode_all, default_workers
from brivl_search.corpus.images import PixelSpec, read_file
from brivl_search.corpus.thumbnails import shrink
from brivl_search.corpus.walk import CAPTIONS_NAME, ImageFile
from brivl_search.errors import BrivlSearchError, CorpusError, ImageError, UsageError
from train.pairs.shards import IMAGES, MANIFEST, WRITERS, LmdbWriter, TarWriter

_EXAMPLES = 5


@dataclass(frozen=True)
class Settings:
    """How to pack; `max_side` in pixels, 0: images stay as they are."""

    shards: str = "tar"
    per_shard: int = 10_000
    max_side: int = 0
    quality: int = 92
    fields: tuple[str, ...] = ()


def caption_files(sources: Sequence[Path]) -> list[Path]:
    """The caption file of every source.

    Raises:
        UsageError: a source is no folder with captions.jsonl and no file.
    """
    files = [source / CAPTIONS_NAME if source.is_dir() else source for source in sources]
    for source, file in zip(sources, files, strict=True):
        if not file.is_file():
            what = f"has no {CAPTIONS_NAME}" if source.is_dir() else "does not exist"
            raise UsageError(f"{source} {what}: give a folder with {CAPTIONS_NAME}, or a caption file")
    return files


def _identity(files: Sequence[Path], settings: Settings) -> str:
    stats = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    return hashlib.sha256(json.dumps([stats, repr(settings)]).encode()).hexdigest()[:16]


class Packing:
    """One output folder: what it holds already, and the shard that is being written."""

    def __init__(self, out: Path, identity: str, settings: Settings) -> None:
        self.out, self.settings = out, settings
        self.manifest: dict[str, Any] = {
            "version": 1, "complete": False, "identity": identity, "kind": settings.shards,
            "pairs": 0, "lines": 0, "shards": [], "fields": {}, "skipped": {}, "examples": {},
        }  # fmt: skip
        if (out / MANIFEST).is_file():
            found = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
            if found.get("identity") != identity:
                raise UsageError(f"{out} holds shards of other sources or settings: give an empty folder")
            self.manifest = found
        self.fields = Counter(self.manifest["fields"])
        self.skipped = Counter(self.manifest["skipped"])
        self.writer: TarWriter | LmdbWriter | None = None
        self.lines = int(self.manifest["lines"])

    def skip(self, name: str, reason: str) -> None:
        self.skipped[reason] += 1
        examples = self.manifest["examples"].setdefault(reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(name)

    def add(self, image: bytes, extension: str, record: dict[str, Any]) -> None:
        if self.writer is None:
            kind = WRITERS[self.settings.shards]
            self.writer = kind(self.out / f"{len(self.manifest['shards']):06d}{kind.suffix}")
        number = self.manifest["pairs"] + self.writer.pairs
        self.writer.add(f"{number:09d}", image, extension, record)
        self.fields.update(name for name, value in record.items() if isinstance(value, list))

    def seal(self, *, complete: bool = False) -> None:
        """Closes the shard and says so in shards.json, which a kill leaves as it was or as it is now."""
        if self.writer is not None:
            self.writer.close()
            size = self.writer.path.stat().st_size
            entry = {"name": self.writer.path.name, "pairs": self.writer.pairs, "bytes": size}
            self.manifest["shards"].append(entry)
            self.manifest["pairs"] += self.writer.pairs
            self.writer = None
        self.manifest |= {
            "lines": self.lines, "complete": complete, "fields": dict(self.fields), "skipped": dict(self.skipped),
        }  # fmt: skip
        with appearing(self.out / MANIFEST, sync=True) as (new,):
            new.write_text(json.dumps(self.manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def pack(
    sources: Sequence[Path], out: Path, settings: Settings, *, workers: int, progress: Any = None
) -> dict[str, Any]:
    """Packs all sources in order; returns what `shards.json` then holds.

    Args:
        sources: folders or caption files.
        out: made if need be; empty, or of the same command.
        workers: decoding processes; 0 decodes in this one.
        progress: called with the number of lines done, now and then.

    Raises:
        UsageError: a source that is none, or `out` holds other shards.
        CorpusError: no pair could be packed.
    """
    files = caption_files(sources)
    out.mkdir(parents=True, exist_ok=True)
    packing = Packing(out, _identity(files, settings), settings)
    if packing.manifest["complete"]:
        return packing.manifest
    waiting: deque[CaptionLine | BadLine] = deque()
    images = _images(files, packing.lines, waiting, settings)
    for decoded in decode_all(images, PixelSpec(32), workers=workers):
        _take_bad(packing, waiting)
        line = waiting.popleft()
        assert isinstance(line, CaptionLine)
        packing.lines += 1
        _add(packing, line, decoded)
        if packing.writer is not None and packing.writer.pairs >= settings.per_shard:
            packing.seal()
        if progress and packing.lines % 100 == 0:
            progress(packing.lines)
    _take_bad(packing, waiting)
    if not packing.manifest["pairs"] and packing.writer is None:
        raise CorpusError(f"no pair of {len(files)} files could be packed: {dict(packing.skipped)}")
    packing.seal(complete=True)
    return packing.manifest


def _images(
    files: Sequence[Path], done: int, waiting: deque[CaptionLine | BadLine], settings: Settings
) -> Iterator[ImageFile]:
    """The image of every good line after the first `done` lines; all of these lines go to `waiting`."""
    number = 0
    for file in files:
        for line in read_captions(file, settings.fields or None):
            number += 1
            if number <= done:
                continue
            waiting.append(line)
            if isinstance(line, CaptionLine) and line.texts:
                yield ImageFile(line.image, 0, 0)
            elif isinstance(line, CaptionLine):
                waiting[-1] = BadLine(line.file, line.line, "no caption in the fields asked for")


def _take_bad(packing: Packing, waiting: deque[CaptionLine | BadLine]) -> None:
    while waiting and isinstance(waiting[0], BadLine):
        bad = waiting.popleft()
        assert isinstance(bad, BadLine)
        packing.lines += 1
        packing.skip(f"{bad.file}:{bad.line}", bad.reason)


def _add(packing: Packing, line: CaptionLine, decoded: Decoded) -> None:
    if decoded.reason:
        packing.skip(line.image, decoded.reason)
        return
    try:
        data = read_file(line.image)
    except ImageError as error:
        packing.skip(line.image, error.reason)
        return
    texts: dict[str, list[str]] = {}
    for name, text in line.texts:
        texts.setdefault(name, []).append(text)
    extension = os.path.splitext(line.image)[1][1:].lower()
    side = packing.settings.max_side
    if side and max(decoded.width, decoded.height) > side:
        data, extension = shrink(data, side, packing.settings.quality), "jpg"
    record = {**line.fields, **texts, "image": line.image, "width": decoded.width, "height": decoded.height}
    packing.add(data, extension if extension in IMAGES else "jpg", record)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="folders or caption files")
    parser.add_argument("out", type=Path, help="folder of the shards")
    parser.add_argument("--shards", choices=sorted(WRITERS), default="tar")
    parser.add_argument("--per-shard", type=int, default=10_000, metavar="N", help="pairs in a shard (10,000)")
    parser.add_argument("--max-side", type=int, default=0, metavar="PIXELS", help="shrink larger images (JPEG)")
    parser.add_argument("--quality", type=int, default=92, help="of those JPEGs (92)")
    parser.add_argument("--fields", default="", help="caption fields, by commas (zh,en,captions)")
    parser.add_argument("--workers", type=int, default=default_workers(), help="decoding processes")
    args = parser.parse_args(argv)
    if args.per_shard < 1:
        parser.error("--per-shard must be 1 or more")
    fields = tuple(name.strip() for name in args.fields.split(",") if name.strip())
    settings = Settings(args.shards, args.per_shard, args.max_side, args.quality, fields)
    from rich.console import Console

    try:
        with Console(stderr=True).status("packing") as status:
            done = pack(
                args.sources, args.out, settings, workers=args.workers,
                progress=lambda lines: status.update(f"packing: {lines:,} lines"),
            )  # fmt: skip
    except BrivlSearchError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    left_out = ", ".join(f"{reason} {count:,}" for reason, count in sorted(done["skipped"].items())) or "nothing"
    size = sum(shard["bytes"] for shard in done["shards"])
    print(
        f"{args.out}: {done['pairs']:,} pairs in {len(done['shards'])} shards, {size / 1e9:.2f} GB; skipped: {left_out}"
    )


if __name__ == "__main__":
    main()
