"""The page for tests: what people do there, and what its collection holds. The fixtures are in tests/e2e/page/."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason="the browser tests need Playwright: pip install playwright")

from playwright.sync_api import Page, expect

SCRIPT = "<script>document.title='owned'</script>"
EVIL = "<img src=x onerror=document.title='owned'>\u202egpj.jpg"
LIMIT = 150_000  # bytes of an upload
PHOTOS = 62

PATIENCE = 20_000  # milliseconds; other tests may keep the machine busy
expect.set_options(timeout=PATIENCE)


@dataclass(frozen=True)
class Site:
    address: str
    engine: Any
    photos: Path


MOVING = {"reduced_motion": "no-preference"}  # for a page as most people see it; the others wait for no motion

Serve = Callable[..., Site]
Open = Callable[..., Page]


def look_for(page: Page, text: str) -> None:
    page.get_by_role("searchbox").fill(text)
    page.keyboard.press("Enter")


def tiles(page: Page) -> Any:
    return page.locator("#grid a.tile")


def names(page: Page) -> list[str]:
    return [os.path.basename(str(tile.get_attribute("title"))) for tile in tiles(page).all()]


def drop(page: Page, name: str, content: bytes, kind: str = "image/jpeg") -> None:
    """What the browser tells a page when a file is dropped onto it."""
    page.evaluate(
        """([name, content, type]) => {
            const carried = new DataTransfer();
            carried.items.add(new File([Uint8Array.from(atob(content), (one) => one.charCodeAt(0))], name, { type }));
            const options = { dataTransfer: carried, bubbles: true, cancelable: true };
            for (const kind of ["dragenter", "dragover", "drop"]) {
                document.body.dispatchEvent(new DragEvent(kind, options));
            }
        }""",
        [name, base64.b64encode(content).decode(), kind],
    )
