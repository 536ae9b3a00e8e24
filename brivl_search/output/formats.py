"""Hits as a table, JSON lines, CSV or paths; for one query, or for each of a batch as it is answered."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from brivl_search.display import as_utf8, harmless
from brivl_search.output.console import PathCell, encodable, match_bar, show, table

if TYPE_CHECKING:
    from rich.table import Table

    from brivl_search.search.engine import Hit

# A batch's CSV streams, so its columns are settled before the first hit is known. The first two are the query's.
BATCH_COLUMNS = (
    *("query", "n"),
    *("rank", "score", "match", "text", "field", "image", "path", "width", "height", "alike", "alike_paths"),
    *("generated", "captioner"),
)
# What JSON leaves as it is and a terminal obeys: DEL, C1, and what turns the reading order.
_RAW_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

# What a spreadsheet takes for a formula: OWASP, "CSV Injection". Full-width signs count, and blanks may stand in front.
_FORMULA = re.compile(r"[\s\x00-\x1f\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")


def hits_table(hits: Sequence[Hit], title: str | None = None) -> Table:
    """Rank, score, match where it is known, and what was found; "+2 alike" counts the hits folded into one."""
    from rich.text import Text

    out = table(title)
    out.add_column("#", justify="right")
    out.add_column("score", justify="right")
    matches = any(hit.match is not None for hit in hits)
    if matches:
        out.add_column("match")
    texts = any(hit.kind == "text" for hit in hits)
    if texts:
        out.add_column("caption", overflow="fold")
    out.add_column("image")
    for hit in hits:
        said = Text(one_line(hit.text or ""))
        caption = [said.append(" (generated)", style="dim") if hit.generated else said] if texts else []
        match = [match_bar(hit.match) if hit.match is not None else ""] if matches else []
        image = PathCell(hit.path, f"  +{len(hit.duplicates)} alike" if hit.duplicates else "")
        out.add_row(str(hit.rank), f"{hit.score:.3f}", *match, *caption, image)
    return out


def print_hits(
    hits: Sequence[Hit], form: str, *, nul: bool = False, query: str | None = None, number: int | None = None
) -> None:
    """Prints hits to stdout and flushes it.

    Args:
        hits: of one query.
        form: "table", "jsonl", "csv" or "paths".
        nul: paths end with NUL, for xargs -0, and nothing else comes between them.
        query: of a batch: stands in front of every JSON object and CSV row, and over every table.
        number: of a batch: the query's, from 0; query 0 brings CSV's header. A blank line goes before the tables and
            paths of the others.
    """
    front: dict[str, Any] = {}
    if query is not None or number is not None:
        front = {"query": query, "n": number}
    if form == "table":
        if number:
            show("")
        _print_table(hits, query)
    elif form == "jsonl":
        print_jsonl({**front, **hit.to_dict()} for hit in hits)
    elif form == "csv":
        rows = [{**front, **hit.to_dict()} for hit in hits]
        if front:
            print_csv(rows, BATCH_COLUMNS, header=not number)
        else:
            columns = list(dict.fromkeys(key for row in rows for key in row if key != "fits"))  # the match says it
            print_csv(rows, columns or ["rank", "score", "path"])
    else:
        if number and not nul:
            sys.stdout.write("\n")
        _print_paths(hits, nul)
    sys.stdout.flush()


def _print_table(hits: Sequence[Hit], query: str | None) -> None:
    from rich.text import Text

    if hits:
        show(hits_table(hits, None if query is None else one_line(query)))
        return
    if query is not None:
        show(Text(one_line(query), style="italic"))
    show(Text("no hits", style="dim"))


def _print_paths(hits: Sequence[Hit], nul: bool) -> None:
    end = b"\0" if nul else b"\n"
    sys.stdout.flush()
    for hit in hits:
        # A pipe gets the name as it is on the disk, a terminal what cannot harm it (as ls does).
        name = harmless(hit.path).encode("utf-8") if sys.stdout.isatty() else os.fsencode(hit.path)
        sys.stdout.buffer.write(name + end)


def print_jsonl(rows: Iterable[Mapping[str, Any]]) -> None:
    """An object a line. Names that are not UTF-8, and characters that a terminal would obey, are JSON escapes."""
    for row in rows:
        line = json.dumps(row, ensure_ascii=False)
        if not encodable(line):
            line = json.dumps(row)
        sys.stdout.write(_RAW_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", line) + "\n")


def print_csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, header: bool = True) -> None:
    """RFC 4180 with LF; lists are JSON in their cell, what a row lacks is empty, bytes that are not UTF-8 are `\\xNN`.

    A spreadsheet runs a text that begins like a formula (= + - @, tab, CR), so `'` goes in front of such a text: then
    it is shown as it is. Numbers stay numbers. In a pipe a text keeps its line ends and control characters, on a
    terminal they are escapes.
    """
    import csv

    writer = csv.writer(_Lines())
    if header:
        writer.writerow(columns)
    terminal = sys.stdout.isatty()
    for row in rows:
        writer.writerow([_cell(row.get(column), terminal) for column in columns])


class _Lines:
    """stdout with LF after each row. The writer itself ends it with CR LF, so that it quotes a cell with either."""

    def write(self, row: str) -> int:
        return sys.stdout.write(row.removesuffix("\r\n") + "\n")


def _cell(value: Any, terminal: bool) -> Any:
    if isinstance(value, list | dict):
        plain = json.dumps(value, ensure_ascii=False)
        value = plain if as_utf8(plain) == plain else json.dumps(value)
    if not isinstance(value, str):
        return value
    shown = harmless(value) if terminal else as_utf8(value)
    return "'" + shown if _FORMULA.match(value) else shown


def one_line(text: str) -> str:
    """A caption or a query for a cell: white space of any kind becomes a space."""
    return harmless(" ".join(text.split()))
