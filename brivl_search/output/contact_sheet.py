"""`--html`: the hits as one self-contained page, which works from a disk and needs no network.

`contact_sheet.html.jinja` is the page; jinja2 escapes whatever captions and file names hold.
"""

from __future__ import annotations

import base64
import errno
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from brivl_search.corpus.atomic import appearing
from brivl_search.display import harmless
from brivl_search.errors import ImageError, not_written
from brivl_search.output.formats import one_line

if TYPE_CHECKING:
    from brivl_search.search.engine import Hit

_CHINESE = re.compile("[\u4e00-\u9fff]")
_SIDE = 360  # pixels of a thumbnail's longer side: sharp at 240 CSS pixels on most screens, 10-20 kB


@dataclass(frozen=True)
class _Card:
    """A hit on the page; `thumbnail` is a data: URI, or empty where `trouble` says why there is none."""

    hit: Hit
    name: str
    caption: str
    link: str
    thumbnail: str = ""
    trouble: str = ""


@dataclass(frozen=True)
class _Group:
    """The hits of one query; `title` is empty where the page has only one."""

    title: str
    cards: list[_Card]


def write_contact_sheet(path: Path, title: str, hits: Sequence[Hit]) -> None:
    """`write_contact_sheets` of one query, whose text is the title."""
    _write(path, _render(title, [_Group("", [_card(hit) for hit in hits])]))


def write_contact_sheets(path: Path, title: str, queries: Sequence[tuple[str, Sequence[Hit]]]) -> None:
    """Writes the page, whole or not at all: thumbnails inside it, links to the originals on this machine's disk.

    Args:
        path: the HTML file; one that is there is replaced.
        title: of the page.
        queries: each with its hits, best first. A picture that cannot be read is a named gap.

    Raises:
        UsageError: the file cannot be written there.
    """
    _write(path, _render(title, [_Group(one_line(query), [_card(hit) for hit in hits]) for query, hits in queries]))


def _write(path: Path, page: str) -> None:
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with appearing(path) as (temporary,):
            temporary.write_text(page, encoding="utf-8")
    except OSError as error:
        raise not_written(f"--html {path}", error) from None


def _render(title: str, groups: Sequence[_Group]) -> str:
    from importlib.resources import files

    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["harmless"] = harmless
    source = files("brivl_search.output").joinpath("contact_sheet.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        title=one_line(title), language="zh" if _CHINESE.search(title) else "en", groups=groups
    )


def _card(hit: Hit) -> _Card:
    from brivl_search.corpus.containers.place import split
    from brivl_search.corpus.thumbnails import thumbnail_jpeg

    absolute = os.path.abspath(hit.path)
    inside = split(absolute)  # a browser can only be led to the container
    link = Path(inside[0] if inside else absolute).as_uri()
    name, caption = harmless(hit.path), one_line(hit.text or "")
    try:
        data = base64.b64encode(thumbnail_jpeg(hit.path, _SIDE)).decode("ascii")
    except ImageError as error:
        return _Card(hit, name, caption, link, trouble=harmless(error.reason))
    return _Card(hit, name, caption, link, thumbnail=f"data:image/jpeg;base64,{data}")
