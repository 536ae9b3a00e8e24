"""axe-core finds no violation in any state of the page, light or dark."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.page_site import Open, Page, Site, drop, expect, tiles

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")

AXE = axe.Axe()
CHIPS = "&term=1:t:snow&term=-0.5:t:people"


def found(page: Page) -> None:
    expect(tiles(page).first.locator(".there img")).to_be_visible()


def details(page: Page) -> None:
    found(page)
    tiles(page).first.click()
    expect(page.locator("#detail-captions li").first).to_be_visible()


def filters(page: Page) -> None:
    page.locator("#filter-button").click()
    expect(page.locator("#filters")).to_be_visible()


def adder(page: Page) -> None:
    found(page)
    page.locator("#add-plus").click()


def menu(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.locator("#menu").click()
    expect(page.locator("#theme")).to_be_visible()


def broken(page: Page) -> None:
    found(page)
    drop(page, "broken.jpg", b"\xff\xd8\xff nothing of the kind")
    expect(page.locator(".chip.bad")).to_be_visible()


def trouble(page: Page) -> None:
    expect(page.get_by_role("alert")).to_be_visible()


def mapped(page: Page) -> None:
    expect(page.locator("#canvas")).to_have_attribute("aria-label", re.compile("62"))


def asked(page: Page) -> None:
    expect(page.locator("#token")).to_be_visible()


STATES: dict[str, tuple[str, Callable[[Page], None]]] = {
    "start": ("", found),
    "photos": (f"?q=a+red+ring{CHIPS}", found),
    "captions": ("?q=a+red+ring&find=texts", found),
    "filters": ("?q=a+red+ring&match=50", filters),
    "adder": ("?q=a+red+ring", adder),
    "details": ("?q=a+red+ring", details),
    "map": ("?q=a+red+ring&view=map", mapped),
    "nothing": ("?q=a+red+ring&glob=no", trouble),
    "field": ("?q=a+red+ring&where=no%3D1", trouble),
    "broken picture": ("?q=a+red+ring", broken),
    "lost picture": ("?q=a+red+ring&term=1:p:lost", trouble),
    "menu": ("?q=a+red+ring", menu),
    "token": ("?q=a+red+ring", asked),
}


@pytest.mark.parametrize("state", STATES)
def test_no_violation(open_page: Open, site: Site, guarded: Site, state: str) -> None:
    where, reach = STATES[state]
    locale = "zh-CN" if len(state) % 2 else "en-GB"  # a state in one of the two
    page = open_page(where, at=guarded if state == "token" else site, color_scheme="light", locale=locale)
    reach(page)
    assert violations(page) == []
    page.emulate_media(color_scheme="dark")
    assert violations(page, {"runOnly": ["color-contrast"]}) == []


def violations(page: Page, options: dict[str, Any] | None = None) -> list[tuple[str, list[str]]]:
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.axe_script)
    found = page.evaluate("options => axe.run(options)", {"resultTypes": ["violations"], **(options or {})})
    return [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found["violations"]]
