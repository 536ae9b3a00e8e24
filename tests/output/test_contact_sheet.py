"""The page that --html writes: whole, self-contained, and no name can break out of its place."""

from __future__ import annotations

import base64
import io
import os
import re
import tarfile
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from PIL import Image

from brivl_search.corpus.thumbnails import thumbnail
from brivl_search.errors import ImageError, UsageError
from brivl_search.output import write_contact_sheet
from brivl_search.search.engine import Hit
from tests.support.pictures import bad_bytes, draw, encoded

EVIL = "<img src=x onerror=alert(1)>\"'&\x1b[31m.jpg"


@dataclass
class Page(HTMLParser):
    """What a browser would make of a page: its elements and its text."""

    source: str
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def hit(rank: int, path: Path | str, **more: object) -> Hit:
    return replace(Hit(rank, 0.5 - rank / 100, "image", str(path)), **more)  # type: ignore[arg-type]


@pytest.fixture
def hits(tmp_path: Path) -> list[Hit]:
    wide, evil, latin1 = (
        tmp_path / "wide.jpg",
        tmp_path / EVIL.replace("/", "_"),
        tmp_path / os.fsdecode(b"caf\xe9.png"),
    )
    draw("red", "circle", (1200, 300)).save(wide)
    for path in (evil, latin1):
        path.write_bytes(encoded(draw("blue", "square", (40, 60)), "PNG"))
    (tmp_path / "broken.jpg").write_bytes(bad_bytes()["truncated.jpg"][0])
    alike = (hit(9, tmp_path / "<b>copy</b>.jpg"),)
    return [
        hit(1, wide, match=0.93, duplicates=alike),
        hit(2, evil),
        hit(3, latin1, kind="text", text="<script>alert('字幕')</script>\n第二行"),
        hit(4, tmp_path / "gone.jpg"),
        hit(5, tmp_path / "broken.jpg"),
    ]


def test_page(tmp_path: Path, hits: list[Hit]) -> None:
    out = tmp_path / "out.html"
    write_contact_sheet(out, 'the "query" <i>雪</i>\x1b', hits)
    page = Page(out.read_text("utf-8"))
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []
    # Nothing of a name has become an element, and the page asks nobody for anything.
    assert not page.all("script") and not page.all("i")[1:] and not page.all("b")[5:]
    assert all("onerror" not in attributes for _, attributes in page.elements)
    assert (
        not re.search(r"https?:|//[a-z]", re.sub('base64,[^"]+|file:///', "", page.source))
        and "\x1b" not in page.source
    )
    assert page.all("html") == [{"lang": "zh"}]
    assert 'the "query" <i>雪</i>\\x1b' in page.text and "5 hits" in page.text and "+1 alike" in page.text
    assert "<script>alert('字幕')</script> 第二行" in page.text and "<b>copy</b>.jpg" in page.text
    # Links lead to the very files, whatever their names.
    links = [attributes["href"] or "" for attributes in page.all("a")]
    assert [unquote_to_bytes(link.removeprefix("file://")) for link in links] == [os.fsencode(h.path) for h in hits]
    # Thumbnails are in the page, in the pictures' own proportions; what cannot be read is a named gap.
    sizes = []
    for attributes in page.all("img"):
        head, data = (attributes["src"] or "").split(",")
        assert head == "data:image/jpeg;base64"
        sizes.append(Image.open(io.BytesIO(base64.b64decode(data))).size)
    assert sizes == [(360, 90), (40, 60), (40, 60)]
    assert [attributes["alt"] for attributes in page.all("img")] == [
        str(tmp_path / "wide.jpg"),
        str(tmp_path / EVIL).replace("\x1b", "\\x1b"),
        "<script>alert('字幕')</script> 第二行",
    ]
    assert "file vanished" in page.text and "truncated" in page.text
    assert "prefers-color-scheme: dark" in page.source and "Content-Security-Policy" in page.source
    assert "93%" in page.text and "width: 93.0%" in page.source and "0.490" in page.text


def test_snapshot_of_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw("red", "circle", (30, 20)).save("a b.png")
    write_contact_sheet(Path("out.html"), "dogs", [hit(1, "a b.png", match=0.5)])
    source = re.sub('base64,[^"]+', "base64,…", Path("out.html").read_text("utf-8")).replace(tmp_path.as_uri(), "file:")
    body = """<body>
<header>
<h1>dogs</h1>
<p>1 hit</p>
</header>
<main>
<ol class="cards">
<li class="card">
<a class="picture" href="file:/a%20b.png" title="a b.png"><img src="data:image/jpeg;base64,…" alt="a b.png"></a>
<div class="about">
<p class="figures"><b>1</b>
<span>50%</span>
<span class="bar" aria-hidden="true"><i style="width: 50.0%"></i></span>
<span class="score" title="cosine">0.490</span></p>
<p class="name">a b.png</p>
</div>
</li>
</ol>
</main>
</body>
</html>"""
    assert source[source.index("<body>") :] == body


def test_a_picture_inside_a_tar(tmp_path: Path) -> None:
    draw("red", "circle", (50, 40)).save(tmp_path / "1.png")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "1.png", arcname="1.png")
    write_contact_sheet(
        tmp_path / "out.html", "q", [hit(1, f"{tmp_path}/x.tar::1.png"), hit(2, f"{tmp_path}/x.tar::2")]
    )
    page = Page((tmp_path / "out.html").read_text("utf-8"))
    assert [one["href"] for one in page.all("a")] == [(tmp_path / "x.tar").as_uri()] * 2  # as near as a link can lead
    assert len(page.all("img")) == 1 and "file vanished" in page.text and "x.tar::1.png" in page.text


def test_no_hits(tmp_path: Path) -> None:
    write_contact_sheet(tmp_path / "out.html", "nothing", [])
    page = Page((tmp_path / "out.html").read_text("utf-8"))
    assert "no hits" in page.text and not page.all("li") and page.all("html") == [{"lang": "en"}]


def test_the_page_is_replaced_whole_or_not_at_all(
    tmp_path: Path, hits: list[Hit], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.html"
    out.write_text("old")

    def full(self: Path, *args: object, **options: object) -> int:
        with self.open("w") as file:
            file.write("half a pa")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(Path, "write_text", full)
        write_contact_sheet(out, "q", hits)
    assert out.read_text() == "old" and not list(tmp_path.glob(".out*"))
    write_contact_sheet(out, "q", hits[:1])
    assert out.read_text("utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("name", ["no/such/folder/out.html", "folder", "file/out.html"])
def test_a_place_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"--html .*: name a file in a folder"):
        write_contact_sheet(tmp_path / name, "q", [])


def test_thumbnails_keep_proportions_and_orientation(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    draw("red", "square", (400, 200)).save(path, exif=exif)
    small = thumbnail(str(path), 100)
    assert small.shape == (100, 50, 3) and small.dtype.name == "uint8"
    centre, corner = small[50, 25].astype(int), small[2, 2].astype(int)
    assert centre[0] > 180 and centre[1] < 90 and corner.min() > 220
    draw("red", "square", (3, 1)).save(tmp_path / "dot.png")
    assert thumbnail(str(tmp_path / "dot.png"), 100).shape == (1, 3, 3)  # never enlarged
    with pytest.raises(ImageError, match="file vanished"):
        thumbnail(str(tmp_path / "gone.jpg"), 100)
