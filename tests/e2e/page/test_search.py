"""Searching on the page: by words and pictures, with terms."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.page_site import MOVING, PHOTOS, Open, Site, drop, expect, look_for, names, tiles
from tests.support.pictures import draw, encoded


def test_a_chinese_query_by_enter_with_match_scroll_and_address(open_page: Open) -> None:
    page = open_page(**MOVING)
    expect(page.locator("#collection")).to_contain_text("62 photos")
    expect(tiles(page)).to_have_count(24)  # some of the collection to begin with
    look_for(page, "红色的圆形")
    expect(tiles(page).first).to_have_attribute("title", re.compile("-red-circle"))
    expect(tiles(page).first.locator(".there img")).to_be_visible()
    first = page.locator("#grid li").first
    expect(first.locator(".match")).to_have_text(re.compile(r"^\d+%$"))
    expect(first.locator(".figures")).to_have_text(re.compile(r"^\d+%$"))  # no cosine
    width = first.locator(".meter").evaluate("node => Number(getComputedStyle(node).getPropertyValue('--part'))")
    assert 0.5 < width <= 1
    assert "q=%E7%BA%A2" in page.url
    page.mouse.wheel(0, 20_000)
    expect(tiles(page)).to_have_count(PHOTOS)
    assert len(set(names(page))) == PHOTOS
    expect(page.locator("#end")).to_be_visible()
    scrolled = page.evaluate("scrollTo(0, 1e6), scrollY")
    tiles(page).last.click()
    page.get_by_role("link", name="More like this").click()
    expect(page.locator(".chip.key")).to_be_visible()
    page.wait_for_function("before => scrollY < before", arg=scrolled)
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
    expect(page.locator("#status")).to_contain_text("Best 40 of 62 photos")
    expect(page.locator("#grid .figures")).to_have_count(0)  # of a sum no match is known
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
    page.get_by_role("button", name="More of …").click()
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
    page.get_by_role("button", name="Less of …").click()
    page.get_by_label("Less of:").press("Escape")
    expect(page.get_by_label("Less of:")).to_be_hidden()


def test_how_many_are_shown_and_of_how_many(open_page: Open, site: Site, bare_site: Site) -> None:
    page = open_page("?q=a+red+ring")
    status = page.locator("#status")
    expect(status).to_have_text(re.compile(r"^Best 40 of 62 photos · \d+ ms$"))
    page.mouse.wheel(0, 20_000)
    expect(status).to_have_text(re.compile("^62 photos · "))
    page.get_by_role("radio", name="Captions").check()
    expect(status).to_have_text(re.compile(r"^Best \d+ of 242 captions · "))
    for where, said in (
        ("glob=*.jpg", "40 shown, more as you scroll"),
        ("glob=*-red-*", "10 photos"),
        ("glob=evil*", "1 photo"),
        ("view=map", "40 photos ringed"),
    ):
        page.goto(f"{site.address}?q=a+red+ring&{where}")
        expect(status).to_have_text(re.compile(f"^{said} · "))
    expect(open_page(at=bare_site).locator("#collection")).to_have_text("3 photos")


@pytest.mark.parametrize(
    ("locale", "find", "said"),
    [
        ("en-US", "", "No photo reaches 30 %: the best are shown · "),
        ("zh-CN", "", "没有照片的匹配度达到 30%，下面是最接近的 · "),
        ("en-US", "&find=texts", "No caption reaches 30 %: the best are shown · "),
    ],
)
def test_that_nothing_fits_is_said(open_page: Open, locale: str, find: str, said: str) -> None:
    page = open_page(locale=locale)
    answers: list[bool | None] = []

    def answer(route: Any) -> None:
        route.fulfill(json={**route.fetch().json(), "fits": answers[-1]})

    page.route("**/v1/search", answer)
    for fits in (False, True, None):
        answers.append(fits)
        page.goto(page.url.partition("?")[0] + f"?q=a+red+ring{find}", wait_until="commit")
        expect(tiles(page).first).to_be_visible()
        if fits is False:
            expect(page.locator("#status")).to_contain_text(said)
        else:
            expect(page.locator("#status")).not_to_contain_text(said.rstrip(" ·"))


def test_a_match_is_written_in_whole_per_cent_everywhere(open_page: Open) -> None:
    page = open_page()
    said = page.evaluate(
        "import('./words.js').then(({ percent }) => [0, 0.0049, 0.005, 0.126, 0.9939, 0.9996, 1].map(percent))"
    )
    assert said == ["<1%", "<1%", "1%", "13%", "99%", "99%", "99%"]
    look_for(page, "a red ring")
    expect(tiles(page).first).to_have_attribute("aria-label", re.compile(r"match \d+%$"))
    every = page.locator("#grid .match").all_inner_texts()
    assert len(every) == 40 and all(re.fullmatch(r"<1%|[1-9]\d?%", text) for text in every)
    tiles(page).first.click()
    expect(page.locator("#detail-figures .match")).to_have_text(every[0])
    expect(page.locator("#detail-figures .score")).to_have_text(re.compile(r"^Cosine [01]\.\d{3}$"))


def test_words_that_the_model_does_not_know_are_named(
    open_page: Open, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page()
    look_for(page, "red circle")
    expect(page.locator("#status")).to_have_text(re.compile(r"ms$"))
    said = lambda texts: [["собака"] if "собака" in text else [] for text in texts]  # noqa: E731
    monkeypatch.setattr(site.engine.encoder, "unknown_words", said, raising=False)
    look_for(page, "red circle собака")
    expect(page.locator("#status")).to_have_text(re.compile(r"ms · the model does not know: собака$"))
