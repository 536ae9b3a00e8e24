"""What goes wrong for people on the page, and what it says to them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from brivl_search.server.protocol.codes import CODES
from tests.support.folders import REPO
from tests.support.page_site import LIMIT, Open, Site, drop, expect, look_for, tiles
from tests.support.pictures import draw, encoded, noise_jpeg

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route


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


def test_a_server_with_a_token_asks_for_it_once(open_page: Open, guarded: Site) -> None:
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


def test_known_errors_of_the_server_are_told_in_chinese(open_page: Open, site: Site, bare_site: Site) -> None:
    """Each by the real server, so that the page keeps knowing its lines."""
    page = open_page("?q=a+red+ring&term=-1:t:a+red+ring", locale="zh-CN")
    said_in_chinese(page, "加上和减去的内容互相抵消了", "请调整权重，或移除其中一项。")
    page.goto(f"{site.address}?q={'a' * 2500}")
    said_in_chinese(page, "文字太长", "服务器最多接受 2,000 个字符。")
    page.goto(f"{site.address}?q=a" + "&term=1:t:b" * 20)
    said_in_chinese(page, "这次搜索的条件太多", "服务器最多接受 16 个，请移除一些。")
    page.goto(f"{site.address}?q=a&term=1:k:aWE")
    said_in_chinese(page, "这张照片已不在索引中", "它已被移除，或者索引已重新建立。")
    bare = open_page("?q=a&find=texts", locale="zh-CN", at=bare_site)
    said_in_chinese(bare, "这个图库没有说明文字", "说明文字来自照片旁边的 captions.jsonl 文件。")
    bare.goto(f"{bare_site.address}?q=a&match=50")
    said_in_chinese(bare, "无法得知这次搜索的匹配度", "编码器经过校准时，才有匹配度")
    page.goto(f"{site.address}?q=a")
    expect(tiles(page).first).to_be_visible()
    drop(page, "broken.jpg", b"\xff\xd8\xff nothing of the kind")
    said_in_chinese(page, "这张图片无法使用", "文件已损坏。")
    drop(page, "notes.heic", b"hello", "")
    said_in_chinese(page, "这张图片无法使用", "这不是图片，或者服务器不认识这种格式。")


def test_the_codes_that_the_page_knows_are_the_servers() -> None:
    said = (REPO / "brivl_search/server/static/said.js").read_text()
    assert set(re.findall(r"^  (\w+): \(", said, re.MULTILINE)) <= set(CODES)


def said_in_chinese(page: Page, heading: str, words: str) -> None:
    alert = page.get_by_role("alert")
    expect(alert.get_by_role("heading")).to_have_text(heading)
    expect(alert).to_contain_text(words)
    expect(alert.locator(".said")).to_have_count(0)


def answering(error: dict[str, object]) -> Callable[[Route], None]:
    body = json.dumps({"error": error})
    return lambda route: route.fulfill(status=400, body=body, content_type="application/json")


def test_codes_without_a_heading_of_their_own_are_said_in_chinese(open_page: Open) -> None:
    page = open_page("?q=a", locale="zh-CN")
    expect(tiles(page).first).to_be_visible()
    for code, details, heading, words in (
        ("disk_full", {}, "服务器出错了", "服务器的磁盘已满。"),
        ("request_too_slow", {"seconds": 30}, "无法完成这次搜索", "30 秒"),
        ("bad_host", {}, "服务器不允许这样访问", "服务器名称无效"),
        ("not_utf8", {"encoding": "gb18030"}, "无法完成这次搜索", "文字不是 UTF-8 编码。"),
    ):
        error = {"type": "usage", "message": "English", "code": code, "details": details}
        page.route("**/v1/search", answering(error))
        look_for(page, code)
        said_in_chinese(page, heading, words)
        page.unroute("**/v1/search")


def test_an_unknown_error_keeps_its_english_line_below_the_chinese_words(open_page: Open) -> None:
    page = open_page("?q=a", locale="zh-CN")
    expect(tiles(page).first).to_be_visible()
    body = json.dumps({"error": {"type": "usage", "message": "the <b>moon</b> is in the way"}})
    page.route("**/v1/search", lambda route: route.fulfill(status=400, body=body, content_type="application/json"))
    look_for(page, "b")
    alert = page.get_by_role("alert")
    expect(alert.get_by_role("heading")).to_have_text("无法完成这次搜索")
    expect(alert.locator(".said")).to_have_text("服务器的说明（英文）：the <b>moon</b> is in the way")
    expect(alert.locator(".said [lang=en]")).to_have_text("the <b>moon</b> is in the way")
    page.locator("#language").click()
    expect(alert.locator(".said")).to_have_text("the <b>moon</b> is in the way")


def test_a_picture_that_cannot_be_used_is_marked_and_goes_with_the_next_search(open_page: Open) -> None:
    page = open_page("?q=a+red+ring")
    expect(tiles(page).first).to_be_visible()
    drop(page, "broken.jpg", b"\xff\xd8\xff nothing of the kind")
    alert, chip = page.get_by_role("alert"), page.locator(".chip")
    expect(alert).to_contain_text("The file is damaged")
    expect(chip).to_have_class(re.compile("bad"))
    expect(chip).to_contain_text("broken.jpg")
    expect(chip.locator("img")).to_have_count(0)  # no broken picture
    expect(alert.get_by_role("button", name="Remove it")).to_be_visible()
    look_for(page, "a blue cross")
    expect(tiles(page).first).to_have_attribute("title", re.compile("-blue-cross"))
    expect(chip).to_have_count(0)
    expect(alert).to_be_hidden()
    page.go_back()
    expect(chip).to_have_class(re.compile("bad"))
    chip.get_by_role("button", name="Remove broken.jpg").click()
    expect(chip).to_have_count(0)
    expect(page.locator("#welcome")).to_be_visible()


def test_of_several_terms_the_one_that_cannot_be_used_is_left_out(open_page: Open) -> None:
    page = open_page("?q=a+red+ring")
    expect(tiles(page).first).to_be_visible()
    for name, content in (("fine.jpg", encoded(draw("red", "cross"), "JPEG")), ("broken.jpg", b"\xff\xd8\xff no")):
        page.locator("#add-plus").click()
        with page.expect_file_chooser() as chooser:
            page.locator("#term-picture").click()
        chooser.value.set_files({"name": name, "mimeType": "image/jpeg", "buffer": content})
        expect(page.locator(".chip").last).to_be_visible()
    expect(page.locator(".chip")).to_have_count(2)
    expect(page.locator(".chip.bad")).to_have_count(1)
    expect(page.locator(".chip.bad")).to_contain_text("broken.jpg")
    page.get_by_role("button", name="Search without it").click()
    expect(page.locator(".chip img")).to_have_count(1)
    expect(page.locator(".chip.bad")).to_have_count(0)
    expect(tiles(page).first).to_be_visible()


def test_a_photo_that_left_the_index_and_one_whose_file_is_gone(open_page: Open, site: Site) -> None:
    page = open_page("?q=a+red+ring&term=1:k:aWE")
    expect(page.locator(".chip.bad")).to_have_count(1)
    expect(page.locator(".chip img")).to_have_count(0)
    page.get_by_role("button", name="Search without it").click()
    expect(tiles(page).first).to_have_attribute("title", re.compile("red-ring|evil-caption"))
    key = tiles(page).first.get_attribute("data-key")
    page = open_page(fresh=True)  # no thumbnail is in its caches
    page.route("**/thumbnail*", lambda route: route.fulfill(status=409))
    page.goto(f"{site.address}?term=1:k:{key}")
    expect(tiles(page).first).to_be_visible()
    expect(page.locator(".chip .name")).to_have_text("picture")
    expect(page.locator(".chip img")).to_have_count(0)
    expect(page.locator(".chip.bad")).to_have_count(0)  # its vector is known: it can be searched with


def test_files_that_are_no_pictures_leave_what_was_found(open_page: Open) -> None:
    page = open_page("?q=a+red+ring")
    expect(tiles(page).first).to_be_visible()
    alert = page.get_by_role("alert")
    for name, content, kind, said in (
        ("notes.txt", b"hello", "text/plain", "This is not a picture"),
        ("empty.jpg", b"", "image/jpeg", "This file cannot be read"),
    ):
        drop(page, name, content, kind)
        expect(alert).to_contain_text(said)
        expect(page.locator(".chip")).to_have_count(0)
        alert.get_by_role("button", name="Close").click()
        expect(alert).to_be_hidden()
        expect(tiles(page)).to_have_count(40)
