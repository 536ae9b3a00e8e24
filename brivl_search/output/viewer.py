"""`--open`: the best hit in the system's own viewer."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from brivl_search.display import harmless
from brivl_search.errors import BrivlSearchError, ImageError, UsageError

if TYPE_CHECKING:
    from brivl_search.search.engine import Hit

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
    path = _file(os.path.abspath(hits[0].path))
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


def _file(path: str) -> str:
    """The file to open: an image inside a container is copied out, and stays in the system's temporary folder."""
    import tempfile

    from brivl_search.corpus.containers.place import split
    from brivl_search.corpus.images import read_file

    inside = split(path)
    if inside is None:
        if not os.path.isfile(path):
            advice = "the file is gone: brivl-search sync brings the index in step"
            raise BrivlSearchError(f"--open {harmless(path)}: {advice}")
        return path
    try:
        data = read_file(path)
    except ImageError as error:
        raise BrivlSearchError(f"--open {harmless(path)}: {error}") from None
    name = os.path.basename(inside[1])
    if not os.path.splitext(name)[1]:
        name += ".png" if data.startswith(b"\x89PNG") else ".jpg"  # a viewer looks at the name, then at the content
    copy = os.path.join(tempfile.mkdtemp(prefix="brivl-search-"), name)
    Path(copy).write_bytes(data)
    return copy
