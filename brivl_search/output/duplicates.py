"""Groups of duplicates as a table, JSON lines or CSV, and the names of files for `xargs -0`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from brivl_search.output.console import PathCell, human_bytes, show, table
from brivl_search.output.formats import print_csv, print_jsonl

if TYPE_CHECKING:
    from brivl_search.search.duplicates import Group

COLUMNS = ("group", "kind", "score", "path", "width", "height", "bytes")


def print_groups(groups: Sequence[Group], form: str) -> None:
    """Prints groups to stdout: "jsonl" has one a line; "table" and "csv" one photo, the best of its group first."""
    if form == "jsonl":
        print_jsonl(group.to_dict(number) for number, group in enumerate(groups, 1))
    elif form == "csv":
        print_csv(_rows(groups), COLUMNS)
    elif not groups:
        show("no duplicates")
    else:
        out = table()
        for name in ("group", "kind", "score", "pixels", "size", "image"):
            out.add_column(name, justify="left" if name in ("kind", "image") else "right")
        for row in _rows(groups):
            score = f"{row['score']:.3f}" if "score" in row else ""
            pixels = f"{row['width']}x{row['height']}" if row["width"] else ""
            size = human_bytes(row["bytes"]) if row["bytes"] else ""
            out.add_row(str(row["group"]), row["kind"], score, pixels, size, PathCell(row["path"], ""))
        show(out)
    sys.stdout.flush()


def print_others(paths: Sequence[str]) -> None:
    """Names as they are on the disk, each with NUL behind it."""
    sys.stdout.flush()
    for path in paths:
        sys.stdout.buffer.write(os.fsencode(path) + b"\0")
    sys.stdout.buffer.flush()


def _rows(groups: Sequence[Group]) -> Iterator[dict[str, Any]]:
    for number, group in enumerate(groups, 1):
        yield {"group": number, "kind": "best", **group.best.to_dict()}
        for other in group.others:
            yield {"group": number, **other.to_dict()}
