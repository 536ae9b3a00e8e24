"""What mkdocs is told beside mkdocs.yml: pages that are files of the repository, and the pictures in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

REPO = Path(__file__).resolve().parents[1]
_INCLUDE = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)
_PICTURES = {"benchmarks/search.png": "img/search.png"}


def on_files(files: Any, config: Any) -> Any:
    """Adds pictures that lie beside the included files."""
    for source, place in _PICTURES.items():
        files.append(File.generated(config, place, abs_src_path=str(REPO / source)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts the file of the repository in the place of an include, its pictures at their place in the site."""

    def text(found: re.Match[str]) -> str:
        folder = found[1].rpartition("/")[0]
        content = (REPO / found[1]).read_text(encoding="utf-8")
        for source, place in _PICTURES.items():
            if source.startswith(folder + "/"):
                content = content.replace(f"]({source.removeprefix(folder + '/')})", f"]({place})")
        return content

    return _INCLUDE.sub(text, markdown)
