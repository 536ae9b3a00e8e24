"""The report of `eval --report` in a browser: no figure is cut off at any width."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser

from brivl_search.encoders.calibration import Calibration
from brivl_search.evaluation import EvaluationOptions, evaluate_index
from brivl_search.evaluation.page import write_page
from brivl_search.index import IndexReader
from brivl_search.metrics import Bootstrap

CUT = "[...document.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth).length"


def test_no_column_is_clipped(browser: Browser, collection: tuple[Path, Path], tmp_path: Path) -> None:
    """Two searches, each figure with its interval: the widest table that there is."""
    with IndexReader.open(collection[1]) as reader:
        options = EvaluationOptions(bootstrap=Bootstrap(resamples=50))
        result = evaluate_index(reader, (1, 5, 10), options=options)
    write_page(tmp_path / "report.html", result, Calibration(6.0, -3.0))
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    assert page.get_by_text("through the index").count() >= 2
    for width in (360, 400, 600, 800, 1000, 1200, 1600):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(CUT) == 0, width
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()
