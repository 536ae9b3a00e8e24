"""The filters."""

from __future__ import annotations

import re

import pytest

from tests.support.page_site import Open, Site, expect, names, tiles


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
    matches = [int(text.rstrip("%")) for text in page.locator("#grid .match").all_inner_texts()]
    assert matches and min(matches) >= 90


@pytest.mark.parametrize(
    ("where", "said", "chinese"),
    [
        ("from=soon", "“soon” is not a date", "“soon”不是日期"),
        ("from=2024-02-30", "“2024-02-30” is not a date", "“2024-02-30”不是日期"),
        ("from=2024-05-02&to=2024-05-01", "exclude each other", "起止日期颠倒"),
        ("size=big", "A size is written 800x600", "尺寸请写成 800x600"),
        ("where=split", "A field is written name=value", "字段请写成 名称=值"),
    ],
)
def test_filters_of_an_address_that_cannot_be_meant(open_page: Open, where: str, said: str, chinese: str) -> None:
    page = open_page(f"?q=a+red+ring&{where}")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("A filter cannot be understood")
    expect(alert).to_contain_text(said)
    page.locator("#language").click()
    expect(alert).to_contain_text("筛选条件有误")
    expect(alert).to_contain_text(chinese)
    alert.get_by_role("button", name="清除筛选").click()
    expect(tiles(page).first).to_be_visible()


def test_a_field_that_the_index_does_not_have(open_page: Open) -> None:
    page = open_page("?q=a+red+ring")
    page.get_by_role("button", name="Filters").click()
    page.get_by_label("Field = value").fill("colour=red")
    page.keyboard.press("Enter")
    alert = page.get_by_role("alert")
    expect(alert.get_by_role("heading")).to_have_text("There is no field “colour” here")
    expect(alert).to_contain_text("The fields are: height, split, width.")
    page.locator("#language").click()
    expect(alert.get_by_role("heading")).to_have_text("这里没有“colour”字段")
    expect(alert).to_contain_text("可用的字段：height、split、width。")
    expect(alert.locator(".said")).to_have_count(0)
    alert.get_by_role("button", name="清除筛选").click()
    expect(tiles(page).first).to_be_visible()


@pytest.mark.parametrize(
    ("where", "said", "chinese"),
    [
        ("glob=*.gif", "No name fits “*.gif”. Some that there are: 0000-red-circle.jpg,", "没有符合“*.gif”的文件名"),
        ("from=2099-01-01", "The newest is of ", "最新的照片日期是 "),
        ("to=1999-01-01", "The oldest is of ", "最早的照片日期是 "),
        ("size=900", "The largest photo has 96x96 pixels.", "最大的照片为 96x96 像素。"),
        ("where=split%3Ddev", "Some values that there are: test, train.", "现有的例如：test、train。"),
        ("where=split%3Dtest&glob=*-blue-*", "Each filter alone lets something through", "单独使用都有结果"),
        ("match=95&where=split%3Dtest&glob=*.png", "Nothing in the collection passes these filters.", "这些筛选条件"),
    ],
)
def test_why_the_filters_let_nothing_through(open_page: Open, where: str, said: str, chinese: str) -> None:
    page = open_page(f"?q=a+blue+cross&{where}")
    alert = page.get_by_role("alert")
    expect(alert.get_by_role("heading")).to_have_text("Nothing fits")
    expect(alert).to_contain_text(said)
    page.locator("#language").click()
    expect(alert.get_by_role("heading")).to_have_text("没有找到")
    expect(alert).to_contain_text(chinese)


def test_a_folder_that_the_index_does_not_have(open_page: Open) -> None:
    page = open_page("?q=a+red+ring&under=%2Fnowhere", locale="zh-CN")
    alert = page.get_by_role("alert")
    expect(alert.get_by_role("heading")).to_have_text("文件夹“/nowhere”里没有内容")
    expect(alert).to_contain_text(re.compile("可用的例如：.*images。"))
    page.locator("#language").click()
    expect(alert.get_by_role("heading")).to_have_text("There is nothing in the folder “/nowhere”")


def test_a_field_box_that_is_hidden_shows_what_an_address_asks_of_it(open_page: Open, bare_site: Site) -> None:
    page = open_page("?q=a+red+circle&where=split%3Dtest&match=50", at=bare_site)
    expect(page.get_by_role("alert")).to_be_visible()
    page.locator("#filter-button").click()
    expect(page.get_by_label("Field = value")).to_have_value("split=test")
    page.locator("#clear-filters").click()
    expect(tiles(page)).to_have_count(3)
    expect(page.get_by_label("Field = value")).to_be_hidden()
