"""Duplicates over a whole library: which photos are grouped, which is the best, and which files can go."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from brivl_search.index import IndexReader, IndexWriter, Item
from brivl_search.search import duplicates
from brivl_search.search.duplicates import Group, Other, Photo, find, spare

DIM = 16


def unit(rng: np.random.Generator, rows: int) -> np.ndarray:
    made = rng.standard_normal((rows, DIM))
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def flipped(look: int, bits: int) -> str:
    return f"{look ^ ((1 << bits) - 1):064x}"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    rng = np.random.default_rng(0)
    vectors = unit(rng, 6)
    vectors[4] = vectors[0]  # mirrored: one vector, another look
    look = int.from_bytes(rng.bytes(32), "big")
    other = int.from_bytes(rng.bytes(32), "big")
    rows = [  # path, vector, content, hash, side, bytes
        ("small", 0, "a", flipped(look, 40), 10, 9),
        ("large", 0, "b", flipped(look, 0), 30, 5),
        ("heavy", 0, "c", flipped(look, 3), 30, 8),
        ("heavy-copy", 0, "c", flipped(look, 3), 30, 8),
        ("far", 0, "d", flipped(look, 44), 10, 9),  # 41 bits and more from "heavy", 44 from "large"
        ("blank", 1, "e", flipped(look, 0), 10, 9),  # the hash of "large", but nothing of it
        ("mirrored", 4, "f", f"{other:064x}", 10, 9),
        ("unhashed", 0, "g", "", 10, 9),
    ]
    with IndexWriter(folder, encoder_name="mini", fingerprint="f", dim=DIM) as w:
        for path, vector, content, phash, side, size in rows:
            w.stage_vectors("image", [content], vectors[[vector]])
            record = {"path": f"/{path}", "width": side, "height": side} | ({"phash": phash} if phash else {})
            w.put("image", Item(f"/{path}", content, size, 1, record))
        w.commit()
    return folder


def told(index: Path, kind: duplicates.Kind) -> list[tuple[str, dict[str, str]]]:
    with IndexReader.open(index) as reader:
        found = find(reader, kind)
    assert (found.photos, found.unhashed) == (8, 1)
    return [(group.best.path, {one.photo.path: one.kind for one in group.others}) for group in found.groups]


def test_exact(index: Path) -> None:
    assert told(index, "exact") == [("/heavy", {"/heavy-copy": "exact"})]


def test_the_same_picture_is_led_by_most_pixels_then_bytes(index: Path) -> None:
    assert told(index, "same") == [("/heavy", {"/heavy-copy": "exact", "/large": "same", "/small": "same"})]


def test_similar_takes_what_the_vectors_say_too(index: Path) -> None:
    beside = {"/heavy-copy": "exact", "/large": "same", "/small": "same"}
    more = dict.fromkeys(("/far", "/mirrored", "/unhashed"), "similar")
    assert told(index, "similar") == [("/heavy", beside | more)]


def test_a_looser_kind_tears_no_group_apart(tmp_path: Path) -> None:
    """A wider picture, such as a screenshot, leads; the photo is near it, and a worn copy of the photo is not."""
    with IndexWriter(tmp_path, encoder_name="mini", fingerprint="f", dim=2) as w:
        for name, angle, look, side in (
            ("wide", 0.0, 0, 30),
            ("photo", 0.2, 1 << 255, 20),
            ("worn", 0.5, 1 << 255, 10),
        ):
            w.stage_vectors("image", [name], np.array([[np.cos(angle), np.sin(angle)]]))
            phash = flipped(look, 4) if look else f"{(1 << 200) - (1 << 60):064x}"
            w.put("image", Item(name, name, 9, 1, {"path": name, "width": side, "height": side, "phash": phash}))
        w.commit()
    with IndexReader.open(tmp_path) as reader:
        assert [group.best.path for group in find(reader, "same").groups] == ["photo"]
        (group,) = find(reader, "similar", 0.97).groups
    assert (group.best.path, {one.photo.path for one in group.others}) == ("wide", {"photo", "worn"})


def test_blocks_group_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    vectors = unit(rng, 40)[rng.integers(0, 40, 150)] + 0.12 * rng.standard_normal((150, DIM))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    near = duplicates._near_by_cosine(vectors, 0.8)
    pairs = near(np.arange(150), np.arange(150))
    expected: list[int] = []
    for row in range(150):
        expected.append(next((lead for lead in range(row) if expected[lead] == lead and pairs[lead, row]), row))
    monkeypatch.setattr(duplicates, "_BLOCK", 16)
    done: list[int] = []
    assert duplicates._leads(150, near, done.append).tolist() == expected
    assert sum(done) == 150 and 10 < len(set(expected)) < 100


def test_only_whole_unchanged_copies_can_go(tmp_path: Path) -> None:
    def photo(name: str) -> Photo:
        path = tmp_path / name
        status = path.stat() if path.exists() else None
        return Photo(str(path), name, status.st_size if status else 0, status.st_mtime_ns if status else 0, 1, 1)

    for name in ("best", "copy", "changed"):
        (tmp_path / name).write_bytes(b"picture")
    os.symlink(tmp_path / "best", tmp_path / "link")
    names = ("copy", "changed", "link", "gone", "x.tar::1.jpg")
    group = Group(photo("best"), tuple(Other(photo(name), "same", 1.0) for name in names))
    (tmp_path / "changed").write_bytes(b"another picture")
    assert [one.shown for one in spare(group)] == ["copy"]
    (tmp_path / "best").unlink()
    assert spare(group) == []
