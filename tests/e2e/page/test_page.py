"""The page in a real browser, on the real server: what people do with what they found, and what goes wrong for them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.folders import REPO
from tests.support.page_site import (  # noqa: F401 - fixtures
    LIMIT,
    SCRIPT,
    Open,
    Serve,
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
from tests.support.pictures import draw, encoded, noise_jpeg

if TYPE_CHECKING:
    from playwright.sync_api import Route


def test_details_by_keys_copy_similar_ones_and_back(open_page: Open, site: Site) -> None:
    page = open_page("?q=a+red+ring", permissions=["clipboard-read", "clipboard-write"])
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
    assert Path(copied).name in names(page)[0]
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


def test_a_server_that_is_gone_and_comes_back(open_page: Open) -> None:
    page = open_page()
    expect(page.locator("#collection")).to_contain_text("photos")
    page.route("**/v1/**", lambda route: route.abort())
    look_for(page, "a red ring")
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    page.unroute("**/v1/**")
    page.get_by_role("button", name="Try again").click()
    expect(tiles(page).first).to_have_attribute("title", re.compile("red-ring|evil-caption"))
    expect(page.get_by_role("alert")).to_be_hidden()


def test_troubles_of_the_server_in_plain_words(open_page: Open) -> None:
    page = open_page()
    expect(page.locator("#collection")).to_contain_text("photos")
    answers = [
        (503, "index", "There is no index"),
        (429, "rate_limited", "Too many requests"),
        (500, "internal", "went wrong"),
    ]
    now = {"status": 0, "type": ""}

    def refuse(route: Route) -> None:
        body = json.dumps({"error": {"type": now["type"], "message": "as <b>it</b> is"}})
        route.fulfill(status=int(now["status"]), body=body, content_type="application/json")

    page.route("**/v1/search", refuse)
    for now["status"], now["type"], said in answers:
        look_for(page, f"a red ring {now['status']}")
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text(said)
        expect(alert.get_by_role("button", name="Try again")).to_be_visible()
        assert page.locator("#problem b").count() == 0


def test_uploads_that_cannot_be_used(open_page: Open) -> None:
    page = open_page()
    expect(page.locator("#collection")).to_contain_text("photos")
    large = noise_jpeg((600, 600))
    assert len(large) > LIMIT
    drop(page, "large.jpg", large)
    expect(page.get_by_role("alert")).to_contain_text("too large")
    drop(page, "notes.txt", b"hello", "text/plain")
    expect(page.get_by_role("alert")).to_contain_text("This is not a picture")
    drop(page, "broken.jpg", b"\xff\xd8\xff nothing of the kind")
    expect(page.get_by_role("alert")).to_contain_text("cannot be used")
    drop(page, "fine.jpg", encoded(draw("red", "cross"), "JPEG"))
    expect(tiles(page).first).to_have_attribute("title", re.compile("-red-cross"))


def test_a_phone_sized_window(open_page: Open) -> None:
    page = open_page(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True, device_scale_factor=2)
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


def test_it_speaks_the_browsers_language_and_remembers_another(open_page: Open) -> None:
    page = open_page("?q=a+red+ring", locale="zh-CN")
    expect(page.get_by_role("button", name="筛选")).to_be_visible()
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    expect(tiles(page).first).to_have_attribute("aria-label", re.compile("匹配度"))
    page.locator("#language").click()
    expect(page.get_by_role("button", name="Filters")).to_be_visible()
    expect(tiles(page).first).to_have_attribute("aria-label", re.compile("match"))
    page.get_by_role("button", name="Colours").click()
    page.reload()
    expect(page.get_by_role("button", name="Filters")).to_be_visible()
    expect(page.get_by_role("button", name="Colours: light")).to_be_visible()
    words = page.evaluate(
        "import('./words.js').then(({ LANGUAGES: { en, zh } }) => [Object.keys(en), Object.keys(zh)])"
    )
    assert words[0] == words[1]
    scripts = REPO / "brivl_search/server/static"
    used = set(re.findall(r'\bt\("(\w+)"', "".join(path.read_text() for path in scripts.glob("*.js"))))
    used |= set(re.findall(r'data-t(?:-\w+)?="(\w+)"', (scripts / "index.html").read_text()))
    assert used <= set(words[0])


def test_the_map_by_pointer_and_by_keys(open_page: Open) -> None:
    page = open_page("?q=a+red+ring")
    expect(tiles(page).first).to_be_visible()
    page.get_by_role("button", name="Map").click()
    canvas = page.locator("#canvas")
    expect(canvas).to_have_attribute("aria-label", re.compile("62 photos"))
    painted = """canvas => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const colours = new Set();
        for (let at = 0; at < data.length; at += 4 * 97) colours.add(data[at] << 16 | data[at + 1] << 8 | data[at + 2]);
        return colours.size;
    }"""
    page.wait_for_function(f"({painted})(document.getElementById('canvas')) > 20")  # the thumbnails are in
    canvas.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#map-said")).to_contain_text(".")
    page.keyboard.press("+")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    panel = page.get_by_role("dialog")
    expect(panel.locator("#detail-path")).to_contain_text("images")
    page.keyboard.press("Escape")
    expect(canvas).to_be_focused()
    page.keyboard.press("0")
    x, y = page.evaluate(
        """() => import('./map.js').then(({ seenAt }) => seenAt(0)).then(([x, y]) => {
            const box = document.getElementById('canvas').getBoundingClientRect();
            return [box.left + x, box.top + y];
        })"""
    )
    page.mouse.move(x, y)
    expect(page.locator("#map-card img")).to_be_visible()
    page.mouse.click(x, y)
    expect(panel).to_be_visible()
    assert "view=map" in page.url and "item=" in page.url


def test_a_server_with_a_token_asks_for_it_once(open_page: Open, serve: Serve) -> None:
    guarded = serve(token="long-enough-token")
    page = open_page("?q=a+red+ring", at=guarded)
    panel = page.get_by_role("dialog")
    panel.get_by_label("Token").fill("something else")
    page.keyboard.press("Enter")
    expect(panel.get_by_role("alert")).to_contain_text("not its token")
    panel.get_by_label("Token").fill("long-enough-token")
    page.keyboard.press("Enter")
    expect(panel).to_be_hidden()
    expect(tiles(page).first.locator(".there img")).to_be_visible()
    page.reload()
    expect(tiles(page).first.locator(".there img")).to_be_visible()
    expect(panel).to_be_hidden()
