"""Searching on the page in a real browser: by words and pictures, with terms and filters."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.page_site import (  # noqa: F401 - fixtures
    PHOTOS,
    Open,
    Site,
    browser_fixture,
    collection_fixture,
    drop,
    expect,
    look_for,
    names,
    open_page_fixture,
    serve_fixture,
    site_fixture,
    tiles,
)
from tests.support.pictures import draw, encoded


def test_a_chinese_query_by_enter_with_match_scroll_and_address(open_page: Open) -> None:
    page = open_page()
    expect(page.locator("#collection")).to_contain_text("62 photos")
    expect(tiles(page)).to_have_count(24)  # some of the collection to begin with
    look_for(page, "红色的圆形")
    expect(tiles(page).first).to_have_attribute("title", re.compile("-red-circle"))
    expect(tiles(page).first.locator(".there img")).to_be_visible()
    first = page.locator("#grid li").first
    expect(first.locator(".match")).to_have_text(re.compile(r"^\d+(\.\d)?%$"))
    expect(first.locator(".score")).to_have_text(re.compile(r"^[01]\.\d{3}$"))
    width = first.locator(".meter").evaluate("node => Number(getComputedStyle(node).getPropertyValue('--part'))")
    assert 0.5 < width <= 1
    assert "q=%E7%BA%A2" in page.url
    page.mouse.wheel(0, 20_000)
    expect(tiles(page)).to_have_count(PHOTOS)
    assert len(set(names(page))) == PHOTOS
    expect(page.locator("#end")).to_be_visible()
    scrolled = page.evaluate("scrollY")
    tiles(page).last.click()
    page.get_by_role("link", name="More like this").click()
    expect(page.locator(".chip.key")).to_be_visible()
    assert page.evaluate("scrollY") < scrolled
    page.go_back()
    expect(page.locator("#detail-figures .score")).to_be_visible()
    page.keyboard.press("Escape")
    expect(tiles(page)).to_have_count(PHOTOS)
    page.wait_for_function("least => scrollY >= least", arg=scrolled - 5)
    again = open_page(page.url.rpartition("/")[2])
    expect(again.get_by_role("searchbox")).to_have_value("红色的圆形")
    expect(tiles(again).first).to_have_attribute("title", re.compile("-red-circle"))


def test_a_dropped_picture_finds_photos_then_captions(open_page: Open) -> None:
    page = open_page()
    picture = draw("blue", "triangle")
    path = Path("dropped.jpg")
    drop(page, path.name, encoded(picture, "JPEG"))
    expect(tiles(page).first).to_have_attribute("title", re.compile("-blue-triangle"))
    expect(page.locator(".chip.picture img")).to_be_visible()
    page.get_by_role("radio", name="Captions").check()
    expect(page.locator("#grid.texts .words").first).to_have_text(re.compile("blue|蓝色"))
    expect(page.locator("#grid.texts .words").first).to_have_text(re.compile("triangle|三角形"))
    expect(page.locator("#grid.texts .match").first).to_be_visible()
    page.go_back()
    expect(page.locator("#grid.images")).to_be_visible()
    expect(page.get_by_role("radio", name="Photos")).to_be_checked()
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("no longer here")


def test_a_picked_or_pasted_picture_and_words_beside_it(open_page: Open, site: Site) -> None:
    page = open_page()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Search with a picture").click()
    chooser.value.set_files(sorted(site.photos.glob("*-green-ring*"))[0])
    expect(tiles(page).first).to_have_attribute("title", re.compile("-green-ring"))
    look_for(page, "a red ring")
    expect(page.locator("#status")).to_contain_text("shown")
    expect(page.locator("#grid .score").first).to_be_visible()
    expect(page.locator("#grid .match")).to_have_count(0)  # of a sum no match is known
    page.evaluate(
        """content => {
            const carried = new DataTransfer();
            carried.items.add(new File([new Uint8Array(content)], "pasted.png", { type: "image/jpeg" }));
            const options = { clipboardData: carried, bubbles: true, cancelable: true };
            document.dispatchEvent(new ClipboardEvent("paste", options));
        }""",
        list(encoded(draw("yellow", "cross"), "JPEG")),
    )
    expect(tiles(page).first).to_have_attribute("title", re.compile("-yellow-cross"))
    expect(page.get_by_role("searchbox")).to_have_value("")


def test_terms_are_added_turned_weighed_and_removed(open_page: Open) -> None:
    page = open_page("?q=a+red+ring")
    expect(tiles(page).first).to_have_attribute("title", re.compile("red-ring|evil-caption"))
    page.get_by_role("button", name="more of").click()
    page.get_by_label("More of:").fill("绿色的圆环")
    page.keyboard.press("Enter")
    chip = page.locator(".chip")
    expect(chip).to_have_count(1)
    chip.get_by_role("combobox").select_option("3")
    expect(tiles(page).first).to_have_attribute("title", re.compile("-green-ring"))
    assert "term=3%3At%3A" in page.url
    chip.get_by_role("button", name="Counts for").click()
    expect(chip).to_have_class(re.compile("minus"))
    expect(tiles(page).first).not_to_have_attribute("title", re.compile("green-ring"))
    page.go_back()
    expect(chip).to_have_class(re.compile("plus"))
    chip.get_by_role("button", name="Remove").click()
    expect(chip).to_have_count(0)
    expect(tiles(page).first).to_have_attribute("title", re.compile("red-ring|evil-caption"))
    page.get_by_role("button", name="less of").click()
    page.get_by_label("Less of:").press("Escape")
    expect(page.get_by_label("Less of:")).to_be_hidden()


def test_filters_narrow_are_counted_and_can_be_cleared(open_page: Open) -> None:
    page = open_page("?q=a+red+circle")
    expect(tiles(page).first).to_be_visible()
    page.get_by_role("button", name="Filters").click()
    page.get_by_label("Name").fill("*-blue-*")
    page.keyboard.press("Enter")
    expect(tiles(page).first).to_have_attribute("title", re.compile("-blue-"))
    assert all("-blue-" in name for name in names(page))
    page.get_by_label("Field = value").fill("split=test")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Nothing fits")
    expect(page.locator("#filter-count")).to_have_text("2")
    page.get_by_role("alert").get_by_role("button", name="Clear filters").click()
    expect(tiles(page).first).to_have_attribute("title", re.compile("-red-circle"))
    page.get_by_label("Taken from").fill("2024-05-01")
    page.get_by_label("to (inclusive)").fill("2024-04-01")
    assert page.get_by_label("to (inclusive)").evaluate("node => node.validationMessage") != ""
    page.get_by_label("to (inclusive)").fill("2099-01-01")
    expect(page.locator("#filter-count")).to_have_text("1")
    assert "from=2024-05-01" in page.url and "to=2099-01-01" in page.url
    page.get_by_role("slider").fill("90")
    expect(page.locator("#filter-count")).to_have_text("2")
    matches = [float(text.rstrip("%")) for text in page.locator("#grid .match").all_inner_texts()]
    assert matches and min(matches) >= 90
