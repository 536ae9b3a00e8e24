"""Where things lie on the page: at every width from 320 to 1,600 px, each control can be reached and read."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.folders import REPO
from tests.support.page_site import MOVING, Open, Page, Site, expect, look_for, tiles

STYLE = (REPO / "brivl_search/server/static/style.css").read_text()
BREAKS = {round(16 * float(rem)) for rem in re.findall(r"(?:max|min)-width: ([\d.]+)rem", STYLE)}
WIDTHS = sorted({*range(320, 1601, 20), *(at + by for at in BREAKS for by in (-1, 0, 1) if at + by >= 320)})
SOME = WIDTHS[::5]  # where the same controls lie as in a state that is walked at every width
LANGUAGES = ("en-GB", "zh-CN")
LONG = "a+dog+that+runs+along+the+beach+with+a+red+ball+in+its+mouth+and+a+child+in+a+blue+coat+behind+it"
CHIPS = "&term=1:t:snow&term=-0.5:t:people+in+red+jackets+on+a+mountain&term=0.5:t:水&term=-1:t:no"

# What is wrong with the controls as they lie now: a list of lines.
CHECK = """() => {
    const wrong = [];
    const root = document.querySelector("dialog[open]") ?? document.body;
    const wide = document.documentElement.clientWidth;
    const named = (node) => node.id || node.name || node.className || node.textContent.trim() || node.tagName;
    const controls = [...root.querySelectorAll("a[href], button, input, select, canvas")].filter(
        (node) => node.checkVisibility({ visibilityProperty: true }) && !node.matches(".skip, #grid li ~ li a"),
    );
    const overflows = (text, box) =>
        text.left < box.left - 1 || text.right > box.right + 1 ||
        text.top < box.top - 2 || text.bottom > box.bottom + 2;
    const checkWords = (node, box) => {
        const words = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
        while (words.nextNode()) {
            const holder = words.currentNode.parentElement;
            if (!words.currentNode.data.trim() || !holder.checkVisibility() || holder.clientWidth === 1) continue;
            const range = document.createRange();
            range.selectNodeContents(words.currentNode);
            if (overflows(range.getBoundingClientRect(), box)) wrong.push(`the words of ${named(node)} overflow it`);
        }
    };
    for (const node of [document.documentElement, root]) {
        if (node.scrollWidth > node.clientWidth) wrong.push(`${named(node)} scrolls sideways`);
    }
    for (const node of controls) {
        node.scrollIntoView({ block: "nearest" });
        const box = node.getBoundingClientRect();
        if (box.left < -0.5 || box.right > wide + 0.5) wrong.push(`${named(node)} reaches out of the window`);
        const hit = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
        if (!hit || !node.contains(hit)) wrong.push(`${hit ? named(hit) : "nothing"} lies over ${named(node)}`);
        if (Math.min(box.width, box.height) < 16) wrong.push(`${named(node)} is tiny`);
        if (node.matches("a:not(.tile), button")) checkWords(node, box);
    }
    for (const node of root.querySelectorAll("label, legend, p, h2, dt, code, .chip")) {
        if (!node.checkVisibility() || node.matches(".hidden, .figures")) continue;
        if (node.scrollWidth > node.clientWidth + 1) wrong.push(`${named(node)} is clipped`);
    }
    if (root === document.body) {
        scrollTo(0, 0);
        const boxes = controls
            .filter((node) => !node.matches("canvas, .map-tools *"))
            .map((node) => [named(node), node.getBoundingClientRect()]);
        for (const [n, [one, a]] of boxes.entries()) {
            for (const [other, b] of boxes.slice(n + 1)) {
                const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
                const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
                if (across > 1 && down > 1) wrong.push(`${one} and ${other} overlap`);
            }
        }
    }
    return wrong;
}"""

# Name and box of every control that can be seen.
BOXES = """what => [...document.querySelectorAll(what)]
    .map((node) => [node.id, node.getBoundingClientRect().toJSON(), node])
    .filter(([, box, node]) => box.width && box.height && node.checkVisibility({ visibilityProperty: true }))
    .map(([name, box]) => [name, box])"""


def walk(page: Page, widths: list[int] = WIDTHS, height: int = 800) -> None:
    """Every width, from the widest to the narrowest. Fails with all that is wrong."""
    wrong = {}
    for width in reversed(widths):
        page.set_viewport_size({"width": width, "height": height})
        if found := page.evaluate(CHECK):
            wrong[width] = found
    assert not wrong, wrong


def with_filters(page: Page) -> None:
    page.locator("#filter-button").click()
    expect(page.locator("#filters")).to_be_visible()


@pytest.mark.parametrize(
    ("where", "widths"),
    [
        ("", SOME),
        (f"?q={LONG}{CHIPS}&glob=*-red-*", SOME),
        (f"?q={LONG}&find=texts&glob=*-red-*", SOME),
        (f"?q={LONG}{CHIPS}&term=1:p:lost&where=split%3Dtest", WIDTHS),
        (f"?q={LONG}&where=nosuch%3D1&from=2024-01-01", SOME),
        (f"?q={LONG}{CHIPS}&view=map&glob=*-red-*", WIDTHS),
    ],
    ids=["start", "chips", "captions", "chips-and-error", "error", "map"],
)
def test_every_control_is_on_top_at_every_width(open_page: Open, where: str, widths: list[int]) -> None:
    every_control_is_on_top(open_page, where, widths, "en-GB")


@pytest.mark.parametrize(
    "where", ["", f"?q={LONG}{CHIPS}&term=1:p:lost&where=split%3Dtest"], ids=["start", "chips-and-error"]
)
def test_every_control_is_on_top_in_chinese(open_page: Open, where: str) -> None:
    every_control_is_on_top(open_page, where, WIDTHS[::2], "zh-CN")


def every_control_is_on_top(open_page: Open, where: str, widths: list[int], locale: str) -> None:
    page = open_page(where, locale=locale, viewport={"width": 1600, "height": 800})
    settle(page, where)
    walk(page, [320, 640, 1280])  # with the filters closed nothing else moves
    with_filters(page)
    if "term" in where:
        page.locator("#add-minus").click()
    walk(page, widths)
    if "map" in where:
        walk(page, [320, 640, 740, 932, 1280], height=400)


def settle(page: Page, where: str) -> None:
    """Waits until what the address asks for is there."""
    if "view=map" in where:
        expect(page.locator("#status")).to_have_text(re.compile(r"\d"))
        expect(page.locator("#canvas")).to_have_attribute("aria-label", re.compile("62"))
    elif "nosuch" in where or "lost" in where:
        expect(page.get_by_role("alert")).to_be_visible()
    else:
        expect(tiles(page).first).to_be_visible()


@pytest.mark.parametrize("locale", LANGUAGES)
def test_the_details_at_every_width(open_page: Open, locale: str) -> None:
    page = open_page("?q=a+red+ring", locale=locale)
    tiles(page).first.click()
    expect(page.locator("#detail-captions li").first).to_be_visible()
    walk(page)
    walk(page, [320, 360, 576, 577, 640, 740, 932], height=400)  # a phone on its side, and lower windows


def test_the_form_for_the_token_at_every_width(open_page: Open, guarded: Site) -> None:
    page = open_page("?q=a+red+ring", at=guarded, locale="zh-CN")
    page.locator("#token").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#sign-in-wrong")).to_be_visible()
    walk(page, SOME)


@pytest.mark.parametrize("locale", LANGUAGES)
def test_a_phone_has_a_menu_for_language_and_colours(open_page: Open, locale: str) -> None:
    page = open_page("?q=a+red+ring", locale=locale, viewport={"width": 360, "height": 740})
    expect(page.locator("#language")).to_be_hidden()
    page.locator("#menu").click()
    expect(page.locator("#language")).to_be_visible()
    for width in (w for w in WIDTHS if w <= 640):
        page.set_viewport_size({"width": width, "height": 740})
        boxes = page.evaluate(BOXES, "#theme, #language")
        assert len(boxes) == 2, (width, boxes)
        for name, box in boxes:
            assert box["left"] >= 0 and box["right"] <= width, (width, name, box)
    page.locator("#language").click()
    page.keyboard.press("Escape")
    expect(page.locator("#language")).to_be_hidden()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN" if locale == "en-GB" else "en")


@pytest.mark.parametrize("locale", LANGUAGES)
def test_a_phone_has_two_rows_of_controls_above_the_first_photo(open_page: Open, locale: str) -> None:
    page = open_page("?q=a+red+ring", locale=locale, viewport={"width": 430, "height": 740})
    expect(tiles(page).first).to_be_visible()
    for width in (430, 412, 390, 360):
        page.set_viewport_size({"width": width, "height": 740})
        two_rows_above_the_first_photo(page)


def two_rows_above_the_first_photo(page: Page) -> None:
    ((_, first), *_) = page.evaluate(BOXES, "#grid a.tile")
    middles = sorted(
        box["y"] + box["height"] / 2
        for _, box in page.evaluate(BOXES, "a, button, input")
        if box["height"] > 1 and 0 <= box["y"] < first["y"]
    )
    rows = [middle for n, middle in enumerate(middles) if n == 0 or middle > middles[n - 1] + 6]
    assert len(rows) == 2, rows
    assert first["y"] <= 130


def test_the_map_can_be_used_beside_the_open_filters(open_page: Open) -> None:
    page = open_page("?q=a+red+ring&view=map", viewport={"width": 360, "height": 740})
    settle(page, "view=map")
    with_filters(page)
    for width, height in ((360, 740), (768, 1024), (1024, 768), (1280, 800), (740, 360)):
        page.set_viewport_size({"width": width, "height": height})
        the_map_is_usable(page, width, height)


def the_map_is_usable(page: Page, width: int, height: int) -> None:
    canvas, panel = page.locator("#canvas").bounding_box(), page.locator("#filters").bounding_box()
    assert canvas and panel
    seen = min(canvas["y"] + canvas["height"], height) - canvas["y"]
    assert seen * canvas["width"] >= 0.25 * width * height, (canvas, panel)
    beside = panel["x"] + panel["width"] <= canvas["x"] + 1 or panel["y"] + panel["height"] <= canvas["y"] + 1
    assert beside, (canvas, panel)
    middle = [canvas["x"] + canvas["width"] / 2, canvas["y"] + seen / 2]
    assert page.evaluate("([x, y]) => document.elementFromPoint(x, y).id", middle) == "canvas"


def test_dark_colours_move_nothing(open_page: Open) -> None:
    def boxes(scheme: str) -> Any:
        page = open_page(f"?q={LONG}{CHIPS}&glob=*-red-*", color_scheme=scheme, viewport={"width": 1600, "height": 800})
        expect(tiles(page).first).to_be_visible()
        expect(page.locator("#status")).to_contain_text("10 photos")
        with_filters(page)
        page.locator("#status").evaluate("node => (node.textContent = '')")  # it says milliseconds
        found = []
        for width in (320, 641, 800, 1024, 1600):
            page.set_viewport_size({"width": width, "height": 800})
            found.append(
                page.evaluate(
                    "[...document.querySelectorAll('button, input, select, .tile')].map((node) =>"
                    " Object.values(node.getBoundingClientRect().toJSON()).map(Math.round))"
                )
            )
        return found

    assert boxes("light") == boxes("dark")


def test_what_the_index_does_not_have_is_not_offered(open_page: Open, bare_site: Site) -> None:
    page = open_page("?q=a+red+circle", at=bare_site)
    expect(tiles(page)).to_have_count(3)
    expect(page.locator("#target")).to_be_hidden()  # no captions
    with_filters(page)
    expect(page.locator("#filters [name=glob]")).to_be_visible()
    expect(page.locator("#filters [name=where]")).to_be_hidden()
    expect(page.locator("#filters [name=match]")).to_be_hidden()
    walk(page, [320, 800, 1280])


def test_a_phone_sized_window(open_page: Open) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}
    page = open_page(**phone, **MOVING)
    expect(tiles(page).first).to_be_visible()
    look_for(page, "绿色的十字")
    expect(tiles(page).first).to_have_attribute("title", re.compile("-green-cross"))
    page.locator("#filter-button").tap()
    expect(page.get_by_label("Folder")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("#filter-button").tap()
    tiles(page).first.tap()
    panel = page.get_by_role("dialog")
    expect(panel.get_by_role("link", name="More like this")).to_be_visible()
    assert page.evaluate("document.getElementById('detail').scrollWidth") <= 360
    panel.get_by_role("button", name="Close").tap()
    expect(panel).to_be_hidden()
