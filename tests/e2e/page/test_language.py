"""Chinese and English, light and dark, and what the browser remembers of that."""

from __future__ import annotations

import re

from tests.support.folders import REPO
from tests.support.page_site import Open, expect, tiles


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


def test_everything_that_was_said_is_said_again_in_the_other_language(open_page: Open) -> None:
    page = open_page("?q=a+red+ring&glob=*.jpg&find=texts", locale="zh-CN")
    expect(page.locator("#status")).to_have_text(re.compile(r"^已显示 \d+ 条，向下滚动查看更多 · "))
    page.locator("#add-plus").click()
    expect(page.locator("#term-label")).to_have_text("加上：")
    page.locator("#language").click()
    expect(page.locator("#term-label")).to_have_text("More of:")
    expect(page.locator("#status")).to_have_text(re.compile("shown, more as you scroll"))
    page.get_by_role("button", name="Map").click()
    canvas = page.locator("#canvas")
    expect(canvas).to_have_attribute("aria-label", re.compile("^Map of 62 photos"))
    page.locator("#language").click()
    expect(canvas).to_have_attribute("aria-label", re.compile("^62 张照片的分布图"))


def test_chinese_words_for_what_the_page_is_about(open_page: Open) -> None:
    page = open_page("?q=a+red+ring", locale="zh-CN")
    expect(page.get_by_role("radio", name="说明文字")).to_be_visible()
    expect(page.get_by_role("button", name="加上")).to_be_visible()
    expect(page.get_by_role("button", name="减去")).to_be_visible()
    expect(page.locator("#status")).to_have_text(re.compile(r"^62 张照片中最相关的 40 张 · \d+ 毫秒$"))
    tiles(page).first.click()
    panel = page.get_by_role("dialog")
    for name in ("找相似照片", "找说明文字"):
        expect(panel.get_by_role("link", name=name)).to_be_visible()
    for name in ("加上这张", "减去这张", "复制路径", "关闭"):
        expect(panel.get_by_role("button", name=name)).to_be_visible()
    words = page.evaluate("import('./words.js').then(({ LANGUAGES }) => LANGUAGES)")
    for key, chinese in words["zh"].items():
        assert "多一些" not in chinese and "少一些" not in chinese and "地图" not in chinese, key
        places = [sorted(re.findall(r"\{\w+\}", one)) for one in (chinese, words["en"][key])]
        assert places[0] == places[1], key
        assert not re.search(r"[\u4e00-\u9fff][,.:;?!]", chinese), (key, "half-width punctuation")
