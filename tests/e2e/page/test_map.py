"""The map: by pointer and by keys."""

from __future__ import annotations

import re

from tests.support.page_site import MOVING, Open, expect, tiles


def test_the_map_by_pointer_and_by_keys(open_page: Open) -> None:
    page = open_page("?q=a+red+ring", **MOVING)
    expect(tiles(page).first).to_be_visible()
    page.get_by_role("button", name="Map").click()
    canvas = page.locator("#canvas")
    expect(canvas).to_have_attribute("aria-label", re.compile("62 photos"))
    painted = """() => {
        const canvas = document.getElementById("canvas");
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const colours = new Set();
        for (let at = 0; at < data.length; at += 4 * 97) colours.add(data[at] << 16 | data[at + 1] << 8 | data[at + 2]);
        return colours.size > 20;
    }"""
    page.wait_for_function(painted)  # the thumbnails are in
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
