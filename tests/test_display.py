"""Paths as people see them: near, short, and never over two lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.cells import cell_len

from brivl_search.display import elided, nearby

LONG = "/srv/pictures/2024/一月/holiday in the mountains/IMG_20240103_101112.jpg"


def test_a_path_is_relative_where_one_stands_above_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert nearby(str(tmp_path / "photos" / "a.jpg")) == "photos/a.jpg"
    assert nearby(str(tmp_path / "x.tar::1.jpg")) == "x.tar::1.jpg"
    assert nearby(str(tmp_path) + "2/a.jpg") == str(tmp_path) + "2/a.jpg"
    assert nearby("photos/a.jpg") == "photos/a.jpg"
    monkeypatch.chdir("/")
    assert nearby(str(tmp_path / "home" / "photos" / "a.jpg")) == "~/photos/a.jpg"
    assert nearby("/usr/a.jpg") == "/usr/a.jpg"


def test_nobody_is_at_home_in_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/")
    assert nearby("/usr/a.jpg") == "/usr/a.jpg"


@pytest.mark.parametrize("cells", range(1, 80))
def test_a_path_never_takes_more_than_its_cells(cells: int) -> None:
    for path in (LONG, "photo.jpg", "文件夹/一只在草地上的狗.jpg", "/" + "x" * 200, "a/" + "很" * 100 + ".jpg"):
        short = elided(path, cells, cell_len)
        assert cell_len(short) <= cells and short
        if cell_len(path) <= cells:
            assert short == path


def test_the_middle_is_left_out_and_the_name_stays() -> None:
    assert elided(LONG, 40, cell_len) == "/srv/pictures/2…/IMG_20240103_101112.jpg"
    assert elided(LONG, 26, cell_len) == "/…/IMG_20240103_101112.jpg"
    assert elided(LONG, 14, cell_len).endswith("112.jpg") and "…" in elided(LONG, 14, cell_len)
    assert elided("文件夹/里面/一只狗.jpg", 16, cell_len) == "文件…/一只狗.jpg"
