"""One browser, one collection and its servers for all tests of the page."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from brivl_search.encoders.calibration import Calibration
from tests.support.browsing import Lent, Windows
from tests.support.building import build
from tests.support.page_site import EVIL, LIMIT, PATIENCE, PHOTOS, SCRIPT, Open, Serve, Site
from tests.support.pictures import COLOURS, SHAPES, captions, draw, write_corpus, write_lines
from tests.support.stub import StubEncoder

pytest.importorskip("playwright", reason="the browser tests need Playwright: pip install playwright")
pytest.importorskip("uvicorn", reason="the server needs pip install '.[serve]'")

from playwright.sync_api import Browser, sync_playwright

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Page, Playwright, Request

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-extensions", "--disable-background-networking", "--mute-audio"]
CALIBRATION = Calibration(slope=12.0, intercept=-6.0)


def chromium(playwright: Playwright) -> str | None:
    """Path of a Chromium: Playwright's own or the system's."""
    # The shell alone takes two thirds of the time: it draws no window around each page.
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = [playwright.chromium.executable_path, *(shutil.which(name) for name in names)]
    return next((path for path in found if path and os.path.exists(path)), None)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = chromium(playwright)
        if path is None:
            pytest.skip("no Chromium here: apt-get install chromium, or playwright install chromium")
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def collection(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(folder, index) of drawings; the last two have captions and a name that would be markup."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "images").mkdir()
    kinds = [(colour, shape) for shape in SHAPES for colour in COLOURS]
    lines = []
    for number in range(PHOTOS - 2):
        colour, shape = kinds[number % len(kinds)]
        path = folder / "images" / f"{number:04d}-{colour}-{shape}.jpg"
        # The first of each kind is what the stub takes its words for; the others are like it.
        draw(colour, shape, seed=None if number < len(kinds) else number).save(path, quality=92)
        lines.append({"image": f"images/{path.name}", **captions(colour, shape), "split": "train"})
    draw("red", "ring").save(folder / "images" / "evil-caption.png")
    lines.append({"image": "images/evil-caption.png", "en": [f"{SCRIPT} a red ring"], "split": "test"})
    draw("black", "cross").save(folder / "images" / EVIL)
    lines.append({"image": f"images/{EVIL}", "en": ["a black cross"], "split": "test"})
    write_lines(folder / "captions.jsonl", lines)
    index = tmp_path_factory.mktemp("index") / "index"
    build(folder, index, StubEncoder())
    return folder, index


@pytest.fixture(scope="package")
def serve(collection: tuple[Path, Path]) -> Iterator[Serve]:
    """Starts the real server on a free port, in a thread: of the collection, or of another (folder, index)."""
    import uvicorn

    from brivl_search.search.engine import Engine
    from brivl_search.server import Settings, create_app

    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(
        of: tuple[Path, Path] = collection, calibration: Calibration | None = CALIBRATION, **settings: Any
    ) -> Site:
        folder, index = of
        engine = Engine(index)
        engine.encoder = StubEncoder()
        engine.encoder.calibration = calibration
        app = create_app(engine, Settings(max_upload_bytes=LIMIT, decoders=1, **settings))
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        running.append((server, thread))
        until = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive() and time.monotonic() < until, "the server did not start"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        return Site(f"http://127.0.0.1:{port}/", engine, folder / "images")

    yield start
    for server, _ in running:
        server.should_exit = True
    for _, thread in running:
        thread.join(10)


@pytest.fixture(scope="package")
def site(serve: Serve) -> Site:
    return serve()


@pytest.fixture(scope="package")
def guarded(serve: Serve) -> Site:
    """It asks for a token: long-enough-token."""
    return serve(token="long-enough-token")


@pytest.fixture(scope="package")
def bare_site(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Three photos without captions or fields, of an encoder that knows no match."""
    folder = tmp_path_factory.mktemp("bare")
    write_corpus(folder / "photos", 3, with_captions=False)
    build(folder / "photos", folder / "index", StubEncoder())
    return serve(of=(folder / "photos", folder / "index"), calibration=None)


@pytest.fixture(scope="package")
def windows(browser: Browser) -> Windows:
    return Windows(browser, PATIENCE)


@pytest.fixture
def open_page(windows: Windows, site: Site) -> Iterator[Open]:
    """Opens the page as in a fresh window. Nothing may ask another server or make the browser complain.

    `fresh=True`: in a window that nobody has used, with nothing in any of its caches.
    """
    complaints: list[str] = []
    strangers: list[str] = []
    lent: list[Lent] = []

    def start(where: str = "", at: Site = site, **options: Any) -> Page:
        def heard(message: ConsoleMessage) -> None:
            # The browser itself reports answers such as 404, which some tests provoke.
            if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
                complaints.append(message.text)

        def asked(request: Request) -> None:
            if not request.url.startswith((at.address, "blob:", "data:")):
                strangers.append(request.url)

        def failed(error: Any) -> None:
            complaints.append(str(error))

        one = windows.lend({"console": heard, "pageerror": failed, "request": asked}, **options)
        lent.append(one)
        one.page.goto(at.address + where)
        return one.page

    yield start
    for one in lent:
        windows.take_back(one)
    assert complaints == [], complaints
    assert strangers == [], strangers
