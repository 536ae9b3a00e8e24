"""Near-identical results are folded together and none is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from brivl_search.corpus.images import PixelSpec
from brivl_search.index import IndexReader, IndexWriter, Item, SearchResult
from brivl_search.ingest.images import ImageStage
from brivl_search.search import looks
from brivl_search.search.dedupe import group
from brivl_search.search.rows import scored
from tests.support.searching import build

DIM = 24
KINDS, COPIES = 40, 6


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 kinds, each six times with a little noise, and one of them ninety times more under one content."""
    folder = tmp_path_factory.mktemp("index")
    rng = np.random.default_rng(0)
    kinds = np.linalg.qr(rng.standard_normal((KINDS, KINDS)))[0][:, :DIM]
    kinds /= np.linalg.norm(kinds, axis=1, keepdims=True)
    with IndexWriter(folder, encoder_name="mini", fingerprint="f", dim=DIM, shard_rows=100) as w:
        noisy = np.repeat(kinds, COPIES, axis=0) + 0.01 * rng.standard_normal((KINDS * COPIES, DIM))
        noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
        w.stage_vectors("image", [f"c{row}" for row in range(len(noisy))], noisy)
        for row in range(len(noisy)):
            w.put("image", Item(f"/{row // COPIES}/{row}", f"c{row}", record={"path": f"/{row // COPIES}/{row}"}))
        for number in range(90):
            w.put("image", Item(f"/7/copy{number}", "c42", record={"path": f"/7/copy{number}"}))
        w.commit()
    return folder


def groups(reader: IndexReader, query: np.ndarray, k: int, alike: float = 0.9) -> list[list[str]]:
    def search(queries: np.ndarray, depth: int) -> SearchResult:
        return reader.search("image", queries, depth)

    found = group(reader, "image", query, k, alike, search)
    for one in found:
        scores = [one.score, *(score for _, score in one.alike)]
        assert scores == sorted(scores, reverse=True)
        places = [one.row, *(place for place, _ in one.alike)]
        assert scores == pytest.approx([float(reader.vector("image", *place) @ query) for place in places], abs=2e-3)
    return [
        [reader.record("image", *place)["path"] for place in [one.row, *(p for p, _ in one.alike)]] for one in found
    ]


def test_each_kind_once_with_all_of_its_copies(index: Path) -> None:
    with IndexReader.open(index) as reader:
        query = reader.vector("image", 0, 3 * COPIES).astype(np.float32)
        found = groups(reader, query, KINDS + 5)
        assert sorted(len(one) for one in found) == [COPIES] * (KINDS - 1) + [COPIES + 90]
        assert sorted(path for one in found for path in one) == sorted(
            record["path"] for _, _, record in reader.records("image")
        )
        assert all(len({path.split("/")[1] for path in one}) == 1 for one in found)
        best = reader.search("image", query[None], 1)
        assert found[0][0] == reader.record("image", int(best.shards[0, 0]), int(best.rows[0, 0]))["path"]
        assert groups(reader, query, 5) == found[:5]


def test_copies_are_alike_at_any_threshold(index: Path) -> None:
    with IndexReader.open(index) as reader:
        place = reader.find("image", "/7/42")
        assert place is not None
        found = groups(reader, reader.vector("image", *place).astype(np.float32), 3, alike=1.0)
    assert len(found[0]) == 91  # the same content; noise of 0.01 is another picture


def test_a_limit_on_what_is_listed_changes_no_group(index: Path) -> None:
    """The leaders are the same: what is not listed is folded all the same."""
    with IndexReader.open(index) as reader:
        query = reader.vector("image", 0, 3 * COPIES).astype(np.float32)

        def search(queries: np.ndarray, depth: int) -> SearchResult:
            return reader.search("image", queries, min(depth, reader.count("image")))

        whole = group(reader, "image", query, KINDS + 5, 0.9, search)
        for most in (0, 1, 3, 50, 1000):
            some = group(reader, "image", query, KINDS + 5, 0.9, search, most)
            assert [one.row for one in some] == [one.row for one in whole]
            for one, full in zip(some, whole, strict=True):
                assert len(one.alike) == min(most, len(full.alike)) and set(one.alike) <= set(full.alike)


def test_rows_that_are_all_alike_cost_a_bounded_number_of_searches(index: Path) -> None:
    with IndexReader.open(index) as reader:
        query = reader.vector("image", 0, 0).astype(np.float32)
        depths = []

        def search(queries: np.ndarray, depth: int) -> SearchResult:
            depths.append(depth)
            return reader.search("image", queries, min(depth, reader.count("image")))

        (one,) = group(reader, "image", query, 3, -1.0, search, 10)
        assert len(one.alike) == 10
    assert max(depths) <= 512 and len(depths) < 10


# -- how pictures look -----------------------------------------------------------------------------------------------


class OneVector:
    """An encoder to which all pictures are almost the same."""

    name, fingerprint, dim, pixels, calibration = "one", "one", 16, PixelSpec(64), None

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        vectors = np.ones((len(pixels), 16)) + 0.05 * np.random.default_rng(len(pixels)).standard_normal(
            (len(pixels), 16)
        )
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        return np.full((len(texts), 16), 0.25, np.float32)

    def warm_up(self) -> None:
        pass

    def cut_tokens(self, texts: list[str]) -> list[int]:
        return [0] * len(texts)


def page(number: int, dark: bool = False) -> Image.Image:
    """A page of words, of one layout with all others."""
    rng = np.random.default_rng(number)
    sheet = Image.new("RGB", (420, 560), (20, 20, 20) if dark else "white")
    pen = ImageDraw.Draw(sheet)
    for y in range(40, 520, 12):
        x = 40
        while (width := int(rng.integers(8, 60))) + x < 380:
            pen.rectangle((x, y, x + width, y + 5), fill=(220, 220, 220) if dark else "black")
            x += width + 6
    return sheet


def pages_index(folder: Path) -> Path:
    """Twelve pages, and of the first one copies: smaller, worse, brighter, in another format."""
    (folder / "pages").mkdir()
    for number in range(12):
        page(number).save(folder / "pages" / f"{number:02}.png")
    first = page(0)
    first.save(folder / "pages" / "00-worse.jpg", quality=40)
    first.resize((210, 280)).save(folder / "pages" / "00-smaller.webp")
    first.point(lambda value: min(255, value + 25)).save(folder / "pages" / "00-brighter.png")
    return build(folder / "pages", folder / "index", OneVector(), workers=0)


def found(index: Path, alike: float) -> list[set[str]]:
    with IndexReader.open(index) as reader:

        def search(queries: np.ndarray, depth: int) -> SearchResult:
            return reader.search("image", queries, depth)

        query = np.full(16, 0.25, np.float32)
        return [
            {Path(reader.record("image", *row)["path"]).stem for row in [one.row, *(other for other, _ in one.alike)]}
            for one in group(reader, "image", query, 20, alike, search)
        ]


EXPECTED = [{"00", "00-worse", "00-smaller", "00-brighter"}, *({f"{number:02}"} for number in range(1, 12))]


def test_pages_of_different_text_stay_apart_and_copies_do_not(tmp_path: Path) -> None:
    index = pages_index(tmp_path)
    shutil.rmtree(tmp_path / "pages")  # the hashes are in the index
    groups = found(index, 0.97)
    assert sorted(groups, key=sorted) == sorted(EXPECTED, key=sorted)
    assert found(index, 0.0) == [set().union(*EXPECTED)]  # whoever asks for it gets everything as one


def test_an_index_without_hashes_reads_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageStage, "_record", lambda self, one, imported: {"path": one.file.path})
    monkeypatch.setattr(looks, "_known", {})
    index = pages_index(tmp_path)
    assert sorted(found(index, 0.97), key=sorted) == sorted(EXPECTED, key=sorted)
    monkeypatch.setattr(looks, "_known", {})
    (tmp_path / "pages" / "03.png").write_bytes((tmp_path / "pages" / "04.png").read_bytes())  # not what was indexed
    shutil.move(tmp_path / "pages" / "05.png", tmp_path / "away.png")
    assert len(found(index, 0.97)) < 12  # of what is not known the cosine decides alone
    monkeypatch.setattr(looks, "_FROM_FILES", 0)
    monkeypatch.setattr(looks, "_known", {})
    assert len(found(index, 0.97)) == 1


def test_scores_are_never_above_one(tmp_path: Path) -> None:
    long = np.full((1, DIM), 1.0002 / DIM**0.5)
    with IndexWriter(tmp_path, encoder_name="mini", fingerprint="f", dim=DIM) as w:
        w.stage_vectors("image", ["a", "b"], np.concatenate([long, -long]))
        for key in "ab":
            w.put("image", Item(f"/{key}", key, record={"path": f"/{key}"}))
        w.commit()
    with IndexReader.open(tmp_path) as reader:
        query = (long[0] * 1.0001).astype(np.float32)
        best = reader.search("image", query[None], 3)
        assert best.scores[0, 0] > 1
        assert [score for _, score in scored(best, 0)] == [1.0, -1.0]
        (leader,) = group(
            reader, "image", query, 9, -2.0, lambda queries, depth: reader.search("image", queries, depth)
        )
        assert (leader.score, leader.alike[0][1]) == (1.0, -1.0)
