"""The command line: one verb per screen. Heavy modules are imported inside the verbs that need them."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from brivl_search.cli import (  # noqa: F401  (they register their verbs, in the order of --help)
    caption,
    classify,
    duplicates,
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
from brivl_search.errors import BrivlSearchError, TowerWarning, system_error


def main() -> None:
    """Entry point: runs a verb and turns errors into one line and an exit code."""
    warnings.showwarning = _tell
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


_others = warnings.showwarning


def _tell(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """A line of ours as the program says it; what other packages warn of, as Python does."""
    if not issubclass(category, TowerWarning):
        _others(message, category, *where, **more)
        return
    from brivl_search.output import say

    say(str(message))
