"""What a person or a pipe sees: tables on a terminal, JSON lines, CSV or bare paths elsewhere. Results go to stdout,
everything else to stderr. Nothing here imports rich before something is drawn with it: a query in a pipe needs none."""

from __future__ import annotations

from brivl_search.display import harmless
from brivl_search.output.console import (
    PathCell,
    default_format,
    human_bytes,
    match_bar,
    print_skips,
    say,
    show,
    table,
    warn,
)
from brivl_search.output.contact_sheet import write_contact_sheet, write_contact_sheets
from brivl_search.output.formats import hits_table, print_csv, print_hits, print_jsonl
from brivl_search.output.preview import preview_hits
from brivl_search.output.progress import Bar
from brivl_search.output.viewer import open_hit

__all__ = [
    "Bar",
    "PathCell",
    "default_format",
    "harmless",
    "hits_table",
    "human_bytes",
    "match_bar",
    "open_hit",
    "preview_hits",
    "print_csv",
    "print_hits",
    "print_jsonl",
    "print_skips",
    "say",
    "show",
    "table",
    "warn",
    "write_contact_sheet",
    "write_contact_sheets",
]
