"""What mkdocs is told beside mkdocs.yml: which files of the repository are pages too, and links that work in both.

A page links to a file where it lies in the repository, so that the link works on a forge. Here such a link becomes one
to the page of that file. A link to a file that is no page keeps its words and leads nowhere.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

REPO = Path(__file__).resolve().parents[1]

# file of the repository -> its place in the site, beside the files in docs/
PAGES = {
    "benchmarks/README.md": "benchmarks.md",
    "indexes/README.md": "format.md",
    "train/README.md": "training-manual.md",
    "brivl_search/models/brivl-mini/README.md": "brivl-mini.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
PICTURES = {
    "benchmarks/search.png": "img/search.png",
    "benchmarks/brivl_vs_clip.png": "img/brivl_vs_clip.png",
}
_SOURCES = {place: source for source, place in PAGES.items()}
_FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[([^\[\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages and pictures that lie elsewhere in the repository."""
    for source, place in (PAGES | PICTURES).items():
        files.append(File.generated(config, place, abs_src_path=str(REPO / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links between files of the repository into links between pages of the site."""
    place = page.file.src_uri
    pieces = _FENCED.split(markdown)
    pieces[::2] = [_LINK.sub(lambda link: _in_site(link, place), piece) for piece in pieces[::2]]
    return "".join(pieces)


def _in_site(link: re.Match[str], place: str) -> str:
    """One link of the page at `place`, as the site needs it."""
    picture, words, target, anchor = link[1], link[2], link[3], link[4] or ""
    if not target or re.match(r"[a-z]+:", target):
        return link[0]
    source = _SOURCES.get(place, f"docs/{place}")
    file = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    there = (PAGES | PICTURES).get(file) or (file.removeprefix("docs/") if file.startswith("docs/") else None)
    if there is None:
        return words
    return f"{picture}[{words}]({posixpath.relpath(there, posixpath.dirname(place) or '.')}{anchor})"
