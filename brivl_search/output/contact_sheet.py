"""`--html`: the hits as one self-contained page, which works from a disk and needs no network."""

from __future__ import annotations

import base64
import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from brivl_search.corpus import containers
from brivl_search.errors import ImageError, UsageError
from brivl_search.output.console import harmless
from brivl_search.output.formats import one_line

if TYPE_CHECKING:
    from brivl_search.engine import Hit

_CHINESE = re.compile("[\u4e00-\u9fff]")
_SIDE = 360  # pixels of a thumbnail's longer side: sharp at 240 CSS pixels on most screens, 10-20 kB

_STYLE = """
:root { color-scheme: light dark; --page: #f6f6f4; --card: #fff; --ink: #1d1d1f; --soft: #63636a; --line: #dddcd8;
        --bar: #2f7d4f; }
@media (prefers-color-scheme: dark) {
  :root { --page: #161618; --card: #212124; --ink: #ececf0; --soft: #a0a0a8; --line: #38383d; --bar: #5cc98b; }
}
* { box-sizing: border-box; }
body { margin: 0; padding: 1.5rem clamp(1rem, 4vw, 3rem) 3rem; background: var(--page); color: var(--ink);
       font: 15px/1.45 system-ui, -apple-system, "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "PingFang SC",
       "Microsoft YaHei", sans-serif; }
h1 { margin: 0; font-size: 1.5rem; font-weight: 600; overflow-wrap: anywhere; }
header p { margin: .25rem 0 1.5rem; color: var(--soft); }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); gap: 1rem;
     margin: 0; padding: 0; list-style: none; }
ol > li { display: flex; flex-direction: column; min-width: 0; background: var(--card); border: 1px solid var(--line);
     border-radius: 8px; overflow: hidden; }
ol > li > a { display: block; aspect-ratio: 4 / 3; background: var(--page); }
ol > li > a:focus-visible { outline: 3px solid var(--bar); outline-offset: -3px; }
img { display: block; width: 100%; height: 100%; object-fit: contain; }
.missing { display: grid; place-items: center; height: 100%; padding: 1rem; color: var(--soft); text-align: center; }
.about { padding: .6rem .8rem .8rem; }
.about p { margin: 0; overflow-wrap: anywhere; }
.figures { display: flex; align-items: center; gap: .6rem; font-variant-numeric: tabular-nums; }
.figures b { font-weight: 600; }
.figures .score { margin-left: auto; color: var(--soft); }
.bar { flex: 0 1 5rem; height: .45rem; border-radius: 99px; background: var(--line); overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--bar); }
.caption { padding-top: .3rem; }
.name, details { padding-top: .3rem; color: var(--soft); font-size: .85rem; overflow-wrap: anywhere; }
details ul { margin: .3rem 0 0; padding-left: 1.1rem; }
"""


def write_contact_sheet(path: Path, title: str, hits: Sequence[Hit]) -> None:
    """Writes the page, whole or not at all: thumbnails inside it, links to the originals on this machine's disk.

    Args:
        path: the HTML file; one that is there is replaced.
        title: the query.
        hits: best first. A picture that cannot be read is a named gap.

    Raises:
        UsageError: the file cannot be written there.
    """
    page = _page(title, hits)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if path.is_dir():
            raise IsADirectoryError(21, "it is a folder")
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise UsageError(f"--html {path}: {error.strerror}: name a file in a folder that you can write to") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _page(title: str, hits: Sequence[Hit]) -> str:
    from html import escape

    name = escape(one_line(title))
    count = "no hits" if not hits else "1 hit" if len(hits) == 1 else f"{len(hits):,} hits"
    cards = "\n".join(_card(hit) for hit in hits)
    return f"""<!doctype html>
<html lang="{"zh" if _CHINESE.search(title) else "en"}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{name} · brivl-search</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{name}</h1>
<p>{count}</p>
</header>
<main>
<ol>
{cards}
</ol>
</main>
</body>
</html>
"""


def _card(hit: Hit) -> str:
    from html import escape

    absolute = os.path.abspath(hit.path)
    name = escape(harmless(hit.path))
    caption = escape(one_line(hit.text)) if hit.text else ""
    figures = [f"<b>{hit.rank}</b>"]
    if hit.match is not None:
        figures.append(f"<span>{hit.match:.0%}</span>")
        figures.append(f'<span class="bar" aria-hidden="true"><i style="width: {hit.match:.1%}"></i></span>')
    figures.append(f'<span class="score" title="cosine">{hit.score:.3f}</span>')
    about = [f'<p class="figures">{" ".join(figures)}</p>']
    if caption:
        about.append(f'<p class="caption">{caption}</p>')
    about.append(f'<p class="name">{name}</p>')
    if hit.duplicates:
        names = "".join(f"<li>{escape(harmless(one.path))}</li>" for one in hit.duplicates)
        about.append(f"<details><summary>+{len(hit.duplicates)} alike</summary><ul>{names}</ul></details>")
    inside = containers.split(absolute)  # a browser can only be led to the container
    link = escape(Path(inside[0] if inside else absolute).as_uri())
    return (
        f'<li><a href="{link}" title="{name}">{_picture(hit, caption or name)}</a>\n'
        f'<div class="about">{"".join(about)}</div></li>'
    )


def _picture(hit: Hit, escaped_alt: str) -> str:
    from html import escape

    from brivl_search.corpus.thumbnails import thumbnail_jpeg

    try:
        data = base64.b64encode(thumbnail_jpeg(hit.path, _SIDE)).decode("ascii")
    except ImageError as error:
        return f'<span class="missing">{escape(harmless(error.reason))}</span>'
    return f'<img src="data:image/jpeg;base64,{data}" alt="{escaped_alt}">'
