"""`--open`: the best hit in the system's own viewer."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from brivl_search.errors import BrivlSearchError, UsageError
from brivl_search.output.console import harmless

if TYPE_CHECKING:
    from brivl_search.engine import Hit

_WAIT_S = 5.0  # a launcher is done by then; what still runs is a viewer


def open_hit(hits: Sequence[Hit]) -> None:
    """Opens the first hit's picture: `open` on a Mac, `xdg-open` elsewhere, else what webbrowser finds (BROWSER).

    Raises:
        UsageError: there is no hit.
        BrivlSearchError: the file is gone, or nothing opens it.
    """
    import shutil
    import subprocess

    if not hits:
        raise UsageError("--open: there is no hit to open")
    path = os.path.abspath(hits[0].path)
    if not os.path.isfile(path):
        raise BrivlSearchError(f"--open {harmless(path)}: the file is gone: brivl-search sync brings the index in step")
    if sys.platform == "win32":
        os.startfile(path)
        return
    opener = shutil.which("open" if sys.platform == "darwin" else "xdg-open")
    if opener is None:
        import webbrowser

        if not webbrowser.open(Path(path).as_uri()):
            raise BrivlSearchError(
                f"--open {harmless(path)}: no viewer: install xdg-utils, or name a program in BROWSER"
            )
        return
    silent = subprocess.DEVNULL
    process = subprocess.Popen([opener, path], stdin=silent, stdout=silent, stderr=silent, start_new_session=True)
    try:
        code = process.wait(_WAIT_S)
    except subprocess.TimeoutExpired:
        return
    if code:
        raise BrivlSearchError(f"--open {harmless(path)}: {opener} ended with {code}: no viewer for this kind of file")
