"""The command line: one verb per screen. Heavy modules are imported inside the verbs that need them."""

from __future__ import annotations

import sys

from brivl_search.cli import (  # noqa: F401  (they register their verbs, in the order of --help)
    classify,
    embed,
    evaluate,
    info,
    ingest,
    match,
    models,
    query,
    serve,
    sources,
    transfer,
    upkeep,
    usage,
)
from brivl_search.cli.app import app
from brivl_search.errors import BrivlSearchError, system_error


def main() -> None:
    """Entry point: runs a verb and turns errors into one line and an exit code."""
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names that are not UTF-8
    try:
        code = app(standalone_mode=False)
    except Exception as error:
        from brivl_search.display import harmless

        if usage.is_usage(error):
            print(f"brivl-search: {harmless(usage.line(error))}", file=sys.stderr)
            sys.exit(2)
        from brivl_search.output.words import as_options

        known = error if isinstance(error, BrivlSearchError) else system_error(error)
        if known is None:
            raise
        print(f"brivl-search: {harmless(as_options(' '.join(str(known).split()), known.details))}", file=sys.stderr)
        sys.exit(known.exit_code)
    sys.exit(code if isinstance(code, int) else 0)
