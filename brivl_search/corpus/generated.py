"""Caption files that a model wrote: lines with "generated": true, as `brivl_search.corpus.captions` reads them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from brivl_search.corpus.atomic import appearing
from brivl_search.errors import UsageError, not_written


def check_out(path: Path, *, force: bool) -> None:
    """Whether captions may be written to a file.

    Raises:
        UsageError: the file is there, perhaps written by a person; or its folder is not, or its name is of no captions.
    """
    if path.is_dir() or not path.name.endswith(".jsonl"):
        raise UsageError(f"`out` {path}: give the name of a file that ends in .jsonl, such as captions.jsonl")
    if not path.parent.is_dir():
        raise UsageError(f"`out` {path}: there is no folder {path.parent}: make it first")
    if path.exists() and not force:
        raise UsageError(f"`out` {path} is there already, and stays: give another name, or `force`", code="kept")


@contextmanager
def captions_file(path: Path, captioner: str) -> Iterator[CaptionsFile]:
    """A new captions.jsonl: it is there when the `with` ends well, and not before.

        with captions_file(Path("photos/captions.jsonl"), "brivl-mini-captions") as file:
            file.add("photos/1.jpg", {"en": ["A dog runs in the snow"]})

    Args:
        path: the file.
        captioner: the name of the model, kept in every line.

    Raises:
        UsageError: no file of this name can be made there.
    """
    with appearing(path) as (temporary,), ExitStack() as opening:
        try:
            out = opening.enter_context(temporary.open("w", encoding="utf-8"))
        except OSError as error:
            raise not_written(f"`out` {path}", error) from None
        yield CaptionsFile(out, path, captioner)


@dataclass
class CaptionsFile:
    """What `captions_file` opens; `rows` lines are written so far."""

    out: IO[str]
    path: Path
    captioner: str
    rows: int = 0

    def add(self, image: str, captions: Mapping[str, Sequence[str]]) -> None:
        """Writes a line.

        Args:
            image: its path; it is kept relative to the file where it lies below the file's folder.
            captions: field → captions; empty ones are left out.
        """
        folder = os.path.join(os.path.abspath(self.path.parent), "")
        absolute = os.path.abspath(image)
        texts = {field: list(some) for field, some in captions.items() if some}
        if not texts:
            return
        line = {"image": absolute.removeprefix(folder), **texts, "generated": True, "captioner": self.captioner}
        said = json.dumps(line, ensure_ascii=False)
        if any("\ud800" <= char <= "\udfff" for char in said):  # a name that is not UTF-8
            said = json.dumps(line)
        self.out.write(said + "\n")
        self.rows += 1
