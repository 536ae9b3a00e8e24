"""Folders by any of their names, names by any of their spellings, patterns without letter case."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from brivl_search.errors import UsageError
from brivl_search.index import IndexReader
from brivl_search.ingest.maintenance import move, remove
from brivl_search.search.allowed import allowed
from brivl_search.search.filters import Filter
from brivl_search.search.paths import anchored
from brivl_search.search.unmatched import check_folders
from tests.support.building import images, texts
from tests.support.pictures import draw, write_lines
from tests.support.searching import build
from tests.support.stub import StubEncoder

NFC, NFD = "café", "cafe\u0301"


def pictures(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(["red", "blue", "green"][number % 3], "ring", size=(40 + number, 40)).save(path, "JPEG")
    return root


def found(index: Path, modality: Any = "image", **given: Any) -> set[str]:
    with IndexReader.open(index) as reader:
        masks = allowed(reader, modality, Filter.of(**given))
        name = "path" if modality == "image" else "image"
        return {os.path.basename(r[name]) for shard, row, r in reader.records(modality) if masks[shard][row]}


@pytest.fixture
def linked(tmp_path: Path) -> tuple[Path, Path, Path]:
    """(the folder itself, its link, an index that was built through the link)."""
    real = pictures(tmp_path / "disk" / "photos", "a.jpg", "sub/b.jpg", "sub/C.JPG")
    (tmp_path / "link").symlink_to(real)
    return real, tmp_path / "link", build(tmp_path / "link", tmp_path / "index", StubEncoder())


def test_an_index_built_through_a_link(linked: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    real, link, index = linked
    everything = {"a.jpg", "b.jpg", "C.JPG"}
    for here in (link, real, link / "sub" / ".."):
        monkeypatch.chdir(here)  # the system gives the real path for all of them
        assert found(index, under=["."]) == everything
        assert found(index, under=["sub"]) == {"b.jpg", "C.JPG"}
        assert found(index, glob=["./*.jpg"]) == everything
        assert found(index, glob=["./sub/*.jpg"]) == {"b.jpg", "C.JPG"}
        assert found(index, glob=["sub/b*"]) == {"b.jpg"}
    for folder in (link, real, real.parent):
        assert found(index, under=[str(folder)]) == everything
    assert found(index, glob=[f"{real}/sub/*"]) == found(index, glob=[f"{link}/sub/*"]) == {"b.jpg", "C.JPG"}


def test_an_index_of_the_folder_asked_for_through_a_link(tmp_path: Path) -> None:
    real = pictures(tmp_path / "disk", "a.jpg", "sub/b.jpg")
    index = build(real, tmp_path / "index", StubEncoder())
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "inner").symlink_to(real / "sub")
    assert found(index, under=[str(tmp_path / "link")]) == {"a.jpg", "b.jpg"}
    assert found(index, under=[str(tmp_path / "inner")]) == {"b.jpg"}
    assert found(index, glob=[f"{tmp_path}/inner/*.jpg"]) == {"b.jpg"}


def test_a_link_below_the_root(tmp_path: Path) -> None:
    pictures(tmp_path / "disk", "b.jpg")
    pictures(tmp_path / "root", "a.jpg")
    (tmp_path / "root" / "album").symlink_to(tmp_path / "disk")
    index = build(tmp_path / "root", tmp_path / "index", StubEncoder())
    if images(index) != [str(tmp_path / "root" / "a.jpg")]:  # where links are followed
        assert found(index, under=[str(tmp_path / "disk")]) == {"b.jpg"}


def test_remove_through_another_link(linked: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    real, _, index = linked
    monkeypatch.chdir(real)
    assert remove(index, paths=["a.jpg"]).images == 1
    assert remove(index, under=[real / "sub"]).images == 2


@pytest.mark.parametrize("name", ["[2019] *", "a[b", "x]y", "?", "[!a]", "[a-z]"])
def test_a_current_folder_whose_name_means_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    index = build(pictures(tmp_path / name, "a.jpg", "sub/b.jpg"), tmp_path / "index", StubEncoder())
    monkeypatch.chdir(tmp_path / name)
    assert found(index, glob=["./*.jpg"]) == {"a.jpg", "b.jpg"}
    assert found(index, glob=["sub/[b]*"]) == {"b.jpg"} and found(index, under=["."]) == {"a.jpg", "b.jpg"}
    monkeypatch.chdir(tmp_path)
    assert found(index, glob=[f"{name}/*.jpg"]) == {"a.jpg", "b.jpg"}  # as a shell completes it
    assert found(index, glob=[f"{tmp_path}/{name}/s*/*"]) == {"b.jpg"}


def test_anchored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert anchored("*.jpg") == "*.jpg" and anchored("*/a/*.jpg") == "*/a/*.jpg"
    assert anchored("./*.jpg") == f"{tmp_path}/*.jpg" and anchored("a/../b/x*") == f"{tmp_path}/b/x*"
    assert anchored("/p/../q/*7.jpg") == "/q/*7.jpg" and anchored("/*.jpg") == "/*.jpg"


@pytest.mark.parametrize(("disk", "typed"), [(NFD, NFC), (NFC, NFD)])
def test_spellings(tmp_path: Path, disk: str, typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = pictures(tmp_path / "photos", f"{disk}/{disk}1.jpg", f"{disk}/2.jpg", "plain.jpg")
    write_lines(root / "captions.jsonl", [{"image": f"{typed}/{typed}1.jpg", "en": "a cup"}])
    index = build(root, tmp_path / "index", StubEncoder())
    assert [(unicodedata.normalize("NFC", name), text) for name, _, text in texts(index)] == [(f"{NFC}1.jpg", "a cup")]
    monkeypatch.chdir(root)
    both = {f"{disk}1.jpg", "2.jpg"}
    assert found(index, under=[typed]) == both and found(index, glob=[f"{typed}/*"]) == both
    assert found(index, glob=[f"{typed}*"]) == {f"{disk}1.jpg"} == found(index, glob=[f"{typed.upper()}1.J?G"])
    assert found(index, "text", under=[typed]) == {f"{disk}1.jpg"}
    assert remove(index, paths=[f"{typed}/{typed}1.jpg"]).captions == 1
    assert remove(index, paths=[f"./{typed}"]).images == 1
    mixed = f"{NFD}/{NFC}.jpg"
    build(pictures(tmp_path / "mixed", mixed), index, StubEncoder())
    for wrong in (f"{NFC}/{NFC}.jpg", f"{NFC}/{NFD}.jpg"):
        assert found(index, glob=[f"{tmp_path}/mixed/{wrong}"]) == {f"{NFC}.jpg"}
    assert remove(index, paths=[tmp_path / "mixed" / NFC / f"{NFD}.jpg"]).images == 1


def test_letter_case(tmp_path: Path) -> None:
    root = pictures(tmp_path / "Photos", "a.jpg", "B.JPG", "ÄÖ.Jpg", "c.jpeg")
    index = build(root, tmp_path / "index", StubEncoder())
    every = {"a.jpg", "B.JPG", "ÄÖ.Jpg"}
    assert found(index, glob=["*.jpg"]) == found(index, glob=["*.JPG"]) == found(index, glob=[f"{root}/*.jPg"]) == every
    assert found(index, glob=["äö*"]) == {"ÄÖ.Jpg"} and found(index, glob=["b.jp?"]) == {"B.JPG"}
    assert found(index, glob=["[A-B]*"]) == {"a.jpg", "B.JPG"}
    assert found(index, under=[str(root)]) and not found(index, under=[str(tmp_path / "photos")])


def test_a_folder_of_which_the_index_holds_nothing_is_named(tmp_path: Path) -> None:
    index = build(pictures(tmp_path / "photos", "a/1.jpg"), tmp_path / "index", StubEncoder())
    with IndexReader.open(index) as reader, pytest.raises(UsageError, match=r"`under` .*nowhere: the index holds no"):
        check_folders(reader, "image", Filter.of(under=["nowhere"]))


def test_a_root_that_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = pictures(tmp_path / "photos", "a.jpg", "sub/b.jpg")
    index = build(root, tmp_path / "index", StubEncoder())
    root.rename(tmp_path / "pictures")
    move(index, root, tmp_path / "pictures")
    monkeypatch.chdir(tmp_path / "pictures")
    assert found(index, under=["."]) == {"a.jpg", "b.jpg"} and found(index, glob=["./sub/*"]) == {"b.jpg"}
    assert not found(index, under=[str(root)])
    assert remove(index, paths=["a.jpg"]).images == 1
