"""The report: one file without any outside, with the figures, the curves and the pictures it promises."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brivl_search.corpus.dataset import load_dataset
from brivl_search.encoders.calibration import Calibration
from brivl_search.evaluation import Evaluation, EvaluationOptions, compare, evaluate_dataset, evaluate_index
from brivl_search.evaluation.calibrating import expected_calibration_error
from brivl_search.evaluation.page import content, write_page
from brivl_search.evaluation.page.charts import even_ticks
from brivl_search.index import IndexReader
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.run import build_index
from brivl_search.metrics import Bootstrap, pair_scores
from tests.support.pictures import write_corpus, write_lines
from tests.support.stub import Silent, StubEncoder

KS = (1, 5, 10)
CALIBRATION = Calibration(6.0, -3.0)
OPTIONS = EvaluationOptions(bootstrap=Bootstrap(resamples=50))


class Page(HTMLParser):
    """Tags with their attributes; unclosed ones are found."""

    VOID = frozenset({"meta", "img", "br", "line", "circle", "polyline", "polygon"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_corpus(folder, 30)
    return folder


def over(folder: Path, encoder: StubEncoder) -> Evaluation:
    return evaluate_dataset(load_dataset(folder), encoder, KS, lambda steps: None, workers=0, options=OPTIONS)


def test_page_of_a_dataset(photos: Path, tmp_path: Path, encoder: StubEncoder) -> None:
    result = over(photos, encoder)
    write_page(tmp_path / "report.html", result, CALIBRATION)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not re.search(r"https?:|//cdn|@import|<script|url\(", text)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        assert (attributes.get("src") or "data:image/jpeg").startswith("data:image/jpeg")
        assert "href" not in attributes
    assert any(
        tag == "meta" and "width=device-width" in (attributes.get("content") or "") for tag, attributes in page.tags
    )
    assert "prefers-color-scheme: dark" in text
    assert sum(tag == "svg" for tag, _ in page.tags) == 4  # two recall curves, histogram, calibration
    words = " ".join(page.text)
    exact = result.text_to_image["exact"]
    assert exact is not None and f"{exact.recall[5]:.1f}" in words and "any-hit" in words and "ECE" in words
    sources = {attributes["src"] for tag, attributes in page.tags if tag == "img"}
    assert len(sources) > 5
    for source in sources:
        assert source is not None
        picture = Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))
        assert max(picture.size) <= 200
    assert len(text) < 1_000_000


def test_page_of_an_index_with_gaps_and_hostile_words(tmp_path: Path, encoder: StubEncoder) -> None:
    folder = tmp_path / "photos <b>"
    paths = write_corpus(folder, 12)
    hostile = "<script>alert(1)</script> a red circle \x1b[31m"
    write_lines(folder / "captions.jsonl", [{"image": f"images/{path.name}", "en": hostile} for path in paths])
    build_index([folder], tmp_path / "index", encoder, BuildOptions(workers=0), Silent())
    for path in paths:
        path.unlink()
    result = evaluate_index(IndexReader.open(tmp_path / "index"), KS, options=OPTIONS)
    write_page(tmp_path / "report.html", result, None)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    words = " ".join(page.text)
    assert "<script" not in text and "\x1b" not in text and "<script>alert(1)</script>" in words
    assert "No calibration plot" in words and "through the index" in words and "ms p50" in words
    assert any(attributes.get("class") == "missing" for _, attributes in page.tags)
    assert sum(tag == "svg" for tag, _ in page.tags) == 3


def test_page_of_one_pair(tmp_path: Path, encoder: StubEncoder) -> None:
    write_corpus(tmp_path / "photos", 1)
    write_page(tmp_path / "report.html", over(tmp_path / "photos", encoder), CALIBRATION)
    Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_page_of_several_encoders(photos: Path, tmp_path: Path, encoder: StubEncoder) -> None:
    first, other = over(photos, encoder), over(photos, StubEncoder("another"))
    write_page(tmp_path / "report.html", first, None, [(other, compare(first, [other])[0])])
    words = " ".join(Page((tmp_path / "report.html").read_text(encoding="utf-8")).text)
    assert "another less stub" in words and "excludes 0" in words


def test_scores_of_true_and_false_pairs(photos: Path, encoder: StubEncoder) -> None:
    pairs = over(photos, encoder).pairs
    assert pairs is not None
    scores = content.scores_of(pairs)
    owners = np.array([partners[0] for partners in pairs.partners])
    assert scores is not None and len(scores.true) == len(scores.false) == 120
    expected = pair_scores(pairs.text_vectors, pairs.image_vectors, np.arange(120), owners)
    assert (scores.true == expected).all() and scores.true.mean() > scores.false.mean() + 0.1
    everyone = pairs.text_vectors @ pairs.image_vectors.T
    everyone[np.arange(120), owners] = np.inf  # a false pair is never the text's own
    gaps = np.abs(everyone - scores.false[:, None]).min(axis=1)
    assert gaps.max() < 1e-6


def test_reliability_by_hand() -> None:
    scores = content.Scores(np.array([0.9, 0.9, 0.1], np.float32), np.array([0.1, 0.1, 0.9], np.float32))
    calibration = Calibration(10, -5)
    found = content.reliability(scores, calibration)
    low, high = calibration.probability(0.1), calibration.probability(0.9)
    assert found.counts.tolist() == [3, 3]
    assert found.probability == pytest.approx([low, high]) and found.share == pytest.approx([1 / 3, 2 / 3])
    belongs = np.array([1, 1, 1, 0, 0, 0], bool)
    probability = np.array([high, high, low, low, low, high])
    assert found.ece == pytest.approx(expected_calibration_error(probability, belongs))


def test_examples(photos: Path, encoder: StubEncoder) -> None:
    result = over(photos, encoder)
    for name in ("text_to_image", "image_to_text"):
        first = result.searched[name]["exact"].ranks.first
        worst, best = content.examples(result, name, "exact")
        assert [one.partner.rank for one in worst] == sorted(first, reverse=True)[: len(worst)]
        assert all(one.partner.rank == 1 and one.found[0].true for one in best)
        for one in worst:
            assert one.found[0].score >= one.partner.score and not one.found[0].true
            assert [found.score for found in one.found] == sorted((f.score for f in one.found), reverse=True)
    assert len(content.examples(result, "text_to_image", "exact")[0]) == content.SHOWN


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (-0.31, 0.62, [-0.2, 0, 0.2, 0.4, 0.6]), (3, 3, [3]), (0, 11, [0, 5, 10])],
)
def test_ticks(low: float, high: float, expected: list[float]) -> None:
    assert even_ticks(low, high) == expected
