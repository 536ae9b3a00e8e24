"""Looks at all of a recipe's data before the first step: caption lines, picture files, captions in the model's words.

What cannot be used is left out and named by file and line. A run is stopped only where nothing could come of it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from brivl_search.corpus.atomic import appearing
from brivl_search.corpus.images import PixelSpec, load_pixels
from brivl_search.errors import CorpusError, ImageError
from train.data.photos import Photo, Photos
from train.data.words import Words
from train.run.show import Bar

NAMED = 5  # bad lines and files that are named; the rest is counted
_SAMPLE = 2000  # captions whose words are looked up
_SMALL = PixelSpec(64)  # a JPEG is decoded in reduced size for it: all of the file is read, in a third of the time

Say = Callable[[str], None]


def usable(photos: Photos, known: Path, say: Say) -> Photos:
    """The photos without those whose files cannot be read.

    Args:
        photos: as their caption files tell of them.
        known: file of what was found before: files that have not changed are not decoded again.
        say: prints a line.

    Raises:
        CorpusError: no training photo is left, or there were photos to validate on, and none is left.
    """
    _name(say, photos.bad, "caption lines cannot be used and are left out")
    reasons = _decoded([*photos.train, *photos.val], known)
    bad = [photo for photo in [*photos.train, *photos.val] if reasons[photo.path]]
    _name(say, [f"{p.line}: {p.path}: {reasons[p.path]}" for p in bad], "photos cannot be read and are left out")
    left = Photos(
        [photo for photo in photos.train if not reasons[photo.path]],
        [photo for photo in photos.val if not reasons[photo.path]],
    )
    for what, before, after in (("training", photos.train, left.train), ("validation", photos.val, left.val)):
        if before and not after:
            raise CorpusError(
                f"none of the {len(before):,} {what} photos can be read; the first: {before[0].line}: "
                f"{before[0].path}: {reasons[before[0].path]}"
            )
    both = {photo.path for photo in left.train} & {photo.path for photo in left.val}
    if both:
        say(f"{len(both):,} validation photos are trained on too, such as {min(both)}: recall on them flatters")
    copies = _copies({photo.path for photo in left.val} - both, {photo.path for photo in left.train})
    if copies:
        one, other = min(copies.items())
        say(
            f"{len(copies):,} validation photos are trained on under another name, such as {one} as {other}: recall on "
            "them flatters; leave one of each pair out of captions.jsonl"
        )
    return left


def _copies(val: Iterable[str], train: Iterable[str]) -> dict[str, str]:
    """Files of `val` → a file of `train` with the same bytes. Only files of one size are read."""
    sizes: dict[int, list[str]] = {}
    for path in val:
        if (size := _size(path)) is not None:
            sizes.setdefault(size, []).append(path)
    alike = [path for path in train if _size(path) in sizes]
    content = {_hash(path): path for path in alike}
    read = {path for size in {_size(path) for path in alike} if size is not None for path in sizes[size]}
    return {path: content[found] for path in read if (found := _hash(path)) in content}


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:  # a container's member, say
        return None


def _hash(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_words(photos: Sequence[Photo], tokenizer: Words, say: Say) -> None:
    """Says so if the tokenizer does not know many of the captions' words."""
    texts = [
        text for photo in photos[:: max(len(photos) // 500, 1)] for said in photo.captions.values() for text in said
    ]
    texts = texts[:: max(len(texts) // _SAMPLE, 1)]
    unknown = [words for words in tokenizer.unknown(texts) if words]
    if texts and len(unknown) > len(texts) / 10:
        some = list(dict.fromkeys(word for words in unknown for word in words))[:8]
        say(
            f"the tokenizer does not know a word of {100 * len(unknown) / len(texts):.0f} % of the captions, such as "
            f"{', '.join(some)}: they are read as [UNK]"
        )


def _name(say: Say, bad: Sequence[str], what: str) -> None:
    if bad:
        say(f"{len(bad):,} {what}:")
        for line in bad[:NAMED]:
            say(f"  {line}")
        if len(bad) > NAMED:
            say(f"  … and {len(bad) - NAMED:,} more")


def _decoded(photos: Sequence[Photo], known: Path) -> dict[str, str]:
    """Path → why the file cannot be read; "": it can."""
    told = _read(known)
    stamps = {photo.path: _stamp(photo.path) for photo in photos}
    new = [path for path, stamp in stamps.items() if told.get(path, [None])[:-1] != stamp]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool, Bar("looking at every photo", len(new)) as bar:
        for done, (path, reason) in enumerate(_reasons(pool, new), 1):
            told[path] = [*stamps[path], reason]
            bar.to(done)
    if new:
        known.parent.mkdir(parents=True, exist_ok=True)
        with appearing(known) as (temporary,):
            temporary.write_text(json.dumps({path: told[path] for path in stamps}), encoding="ascii")
    return {path: str(told[path][-1]) for path in stamps}


def _reasons(pool: ThreadPoolExecutor, paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    for at in range(0, len(paths), 256):  # `map` would take all of them at once
        some = paths[at : at + 256]
        yield from zip(some, pool.map(_reason, some), strict=True)


def _reason(path: str) -> str:
    try:
        load_pixels(path, _SMALL)
    except ImageError as error:
        return str(error)
    return ""


def _stamp(path: str) -> list[int]:
    try:
        status = os.stat(path.partition("::")[0])
    except OSError:
        return [-1, -1]
    return [status.st_size, status.st_mtime_ns]


def _read(known: Path) -> dict[str, list[int | str]]:
    try:
        told = json.loads(known.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
