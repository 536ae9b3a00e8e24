"""The details of a photo: by keys, what is said of it, its path, and where to go from there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.building import build
from tests.support.page_site import MOVING, SCRIPT, Open, Serve, Site, expect, names, tiles
from tests.support.pictures import write_corpus
from tests.support.stub import StubEncoder


def test_details_by_keys_copy_similar_ones_and_back(open_page: Open, site: Site) -> None:
    page = open_page("?q=a+red+ring", permissions=["clipboard-read", "clipboard-write"], **MOVING)
    expect(tiles(page).first).to_be_visible()
    tiles(page).first.focus()
    page.keyboard.press("ArrowRight")
    expect(tiles(page).nth(1)).to_be_focused()
    below = page.evaluate("document.activeElement.getBoundingClientRect().top")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") > below
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    panel = page.get_by_role("dialog")
    expect(panel.locator("#detail-captions li").first).to_contain_text(re.compile("red|红色"))
    expect(panel.locator("#detail-facts")).to_contain_text("pixels")
    assert page.locator("#detail-image").evaluate("image => image.decode().then(() => image.naturalWidth)") == 96
    panel.get_by_role("button", name="Copy path").click()
    expect(panel.locator("#detail-said")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == panel.locator("#detail-path").inner_text()
    assert copied == str(site.photos / names(page)[0])  # absolute, wherever the server was started
    shown = panel.get_by_role("heading").first.inner_text()
    page.keyboard.press("ArrowRight")
    expect(panel.get_by_role("heading").first).not_to_have_text(shown)
    assert "item=" in page.url
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    assert "item=" not in page.url
    expect(tiles(page).nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    panel.get_by_role("link", name="More like this").click()
    expect(panel).to_be_hidden()
    expect(page.locator(".chip.key img")).to_be_visible()
    expect(page.get_by_role("searchbox")).to_have_value("")
    page.go_back()
    expect(panel).to_be_visible()
    page.go_back()
    expect(page.get_by_role("searchbox")).to_have_value("a red ring")


def test_captions_and_names_never_become_markup(open_page: Open) -> None:
    page = open_page("?q=a+red+ring&find=texts&where=split%3Dtest")
    expect(page.locator(".words").first).to_have_text(f"{SCRIPT} a red ring")
    tiles(page).first.click()
    expect(page.locator("#detail-captions")).to_contain_text(SCRIPT)
    page.keyboard.press("Escape")
    page = open_page("?q=a+black+cross&where=split%3Dtest")
    expect(tiles(page).first).to_be_visible()
    tiles(page).first.click()
    expect(page.locator("#detail-path")).to_contain_text("<img src=x onerror=document.title='owned'>\ufffdgpj.jpg")
    assert "owned" not in page.title()
    assert page.locator("#grid script, #detail script, img[onerror], img[src=x]").count() == 0


def test_the_path_is_absolute_where_the_index_was_built_by_a_relative_one(
    open_page: Open, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpus(tmp_path / "photos", 2)
    monkeypatch.chdir(tmp_path)
    build(Path("photos"), tmp_path / "index", StubEncoder())
    page = open_page("?q=a+red+circle", at=serve(of=(tmp_path / "photos", tmp_path / "index")))
    assert not str(tiles(page).first.get_attribute("title")).startswith("/")
    tiles(page).first.click()
    expect(page.locator("#detail-path")).to_have_text(str(tmp_path / "photos/images/0000-red-circle.jpg"))
