"""Windows of one browser that tests borrow one after the other: to open one costs more than most tests do in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Error, Page

SIZE = {"width": 1200, "height": 800}
# What a window can change while it is open, with what each borrower gets who does not say. Nobody waits for motion.
MEDIA = {"color_scheme": "light", "reduced_motion": "reduce"}

Listeners = dict[str, Callable[[Any], None]]


@dataclass
class Lent:
    """A window in use."""

    page: Page
    context: BrowserContext
    kind: str
    listeners: Listeners
    keep: bool


class Windows:
    """Lends windows. Whoever gets one finds neither storage, cookies, routes nor a place of the pointer in it.

    Args:
        browser: that opens them.
        patience: milliseconds that its pages wait for anything.
    """

    def __init__(self, browser: Browser, patience: float) -> None:
        self._browser, self._patience = browser, patience
        self._free: dict[str, list[tuple[BrowserContext, Page]]] = {}

    def lend(self, listeners: Listeners, fresh: bool = False, **options: Any) -> Lent:
        """A window of these options of a browser context; of one kind are those that differ in size or colours alone.

        Args:
            listeners: by the event of a page, until the window is given back.
            fresh: nobody had it before, and nobody will: its caches are empty.
        """
        size = options.pop("viewport", SIZE)
        media = {name: options.pop(name, usual) for name, usual in MEDIA.items()}
        options = {"locale": "en-GB", **options}
        kind = repr(sorted(options.items()))
        free = [] if fresh else self._free.get(kind, [])
        if free:
            context, page = free.pop()
        else:
            context = self._browser.new_context(viewport=size, **options)
            page = context.new_page()
            page.set_default_timeout(self._patience)
        if page.viewport_size != size:
            page.set_viewport_size(size)
        page.emulate_media(**media)
        for event, listener in listeners.items():
            page.on(event, listener)  # type: ignore[call-overload]
        return Lent(page, context, kind, listeners, not fresh)

    def take_back(self, lent: Lent) -> None:
        """Makes it as it was; one that cannot be is closed."""
        page = lent.page
        try:
            page.unroute_all(behavior="ignoreErrors")
            page.mouse.move(0, 0)
            origin = page.evaluate("localStorage.clear(), sessionStorage.clear(), origin")  # hears what is still said
            for event, listener in lent.listeners.items():
                page.remove_listener(event, listener)
            lent.context.clear_cookies()
            if lent.keep:
                page.goto(f"{origin}/icon.svg")  # what the page still had to do ends here
                self._free.setdefault(lent.kind, []).append((lent.context, page))
                return
        except Error:
            pass
        lent.context.close()
