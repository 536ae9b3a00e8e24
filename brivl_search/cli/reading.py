"""What classify, match and embed share: they need an encoder and no index, and read pictures one by one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Protocol, TypeVar

import typer

from brivl_search.errors import CorpusError, SkippedItemsError, UsageError

if TYPE_CHECKING:
    from brivl_search.corpus.decode_pool import Decoded
    from brivl_search.embedding.pictures import Pictures
    from brivl_search.encoders.base import Encoder
    from brivl_search.encoders.runtimes.choice import Precision, Runtime
    from brivl_search.output import Bar


class RowFormat(StrEnum):
    table = "table"
    jsonl = "jsonl"
    csv = "csv"


RowOption = Annotated[RowFormat | None, typer.Option("--format", help="Default: table on a terminal, jsonl in a pipe.")]
NO_PROBABILITY = "this encoder has no calibration: the score is the cosine, and there is no probability"


# -- what the verbs share ----------------------------------------------------------------------------------------


def load(encoder: str | None, device: str, runtime: Runtime, precision: Precision) -> Encoder:
    from brivl_search.encoders import DEFAULT, load_encoder

    return load_encoder(encoder or DEFAULT, device=device, runtime=runtime, precision=precision)


def read_lines(option: str, source: str, encoding: str | None, what: str) -> list[str]:
    """The lines of a text file, or of stdin (-), stripped; those with nothing to see are passed over.

    Args:
        option: that names the file, for messages.
        source: the file.
        encoding: of the file; None: UTF-8.
        what: a line holds, for messages: "a text".

    Raises:
        UsageError: it cannot be read, is of another encoding, or holds nothing.
    """
    from brivl_search.corpus.encodings import check_encoding, decode_file
    from brivl_search.corpus.spelling import visible

    check_encoding(encoding)
    try:
        raw = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise UsageError(f"{option} {source}: {error.strerror}: give a text file with {what} a line") from None
    lines = [line.strip() for line in decode_file(raw, f"{option} {source}", encoding).splitlines() if visible(line)]
    if not lines:
        raise UsageError(f"{option} {source} holds no {what.split()[-1]}: write one a line")
    return lines


def bar_beside(quiet: bool, form: str) -> Bar:
    """No bar on a terminal that the results stream to."""
    from brivl_search.output import Bar

    return Bar(quiet=quiet or (form != "table" and sys.stdout.isatty()))


def warn_beside(line: str) -> None:
    from brivl_search.output import warn

    warn(line)


class Read(Protocol):
    """Something that was made of a picture."""

    @property
    def decoded(self) -> Decoded: ...


R_co = TypeVar("R_co", bound=Read, covariant=True)


class Reader(Generic[R_co]):
    """What is made of the pictures that could be read, one after the other; what could not is told at the end.

    `make`, such as `embed_images` of an encoder, is given files, `advance` and how they are read.
    """

    def __init__(
        self,
        found: Pictures,
        make: Callable[..., Iterator[R_co]],
        bar: Bar,
        workers: int | None,
        batch_size: int,
        megapixels: float,
    ) -> None:
        self._found, self._make, self._bar = found, make, bar
        self._options: dict[str, Any] = {"workers": workers, "batch_size": batch_size, "max_megapixels": megapixels}
        self._skipped = list(found.skipped)
        self._read = 0

    def __iter__(self) -> Iterator[R_co]:
        from brivl_search.corpus.walk import Skipped

        files = self._found.files
        self._bar.phase("images", len(files))
        for one in self._make(files, advance=self._bar.advance, **self._options):
            decoded = one.decoded
            if decoded.pixels is None:
                self._skipped.append(Skipped(decoded.file.path, decoded.reason, decoded.detail))
            else:
                self._read += 1
                yield one

    def check(self) -> None:
        """Raises CorpusError if there was no picture that could be read."""
        if not self._read:
            first = self._skipped[0]
            raise CorpusError(f"no image can be read: {first.path}: {first.reason} ({len(self._skipped):,} skipped)")

    def finish(self, quiet: bool, verbose: bool, strict: bool) -> None:
        """Tells what was skipped; raises SkippedItemsError under --strict, CorpusError if nothing was read."""
        from brivl_search.output import print_skips

        if not quiet:
            print_skips(self._skipped, verbose=verbose)
        if strict and self._skipped:
            raise SkippedItemsError(f"{len(self._skipped):,} files were skipped (--strict)")
        self.check()
