"""The page in a real browser, on the real server: what people do with it, and what goes wrong for them."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from brivl_search.calibration import Calibration
from tests.building import build
from tests.e2e.stub import StubEncoder
from tests.pictures import COLOURS, SHAPES, captions, draw, encoded, noise_jpeg, write_lines

pytest.importorskip("playwright", reason="the browser tests need Playwright: pip install playwright")
pytest.importorskip("uvicorn", reason="the server needs pip install '.[serve]'")

from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

if TYPE_CHECKING:
    from playwright.sync_api import Playwright

SCRIPT = "<script>document.title='owned'</script>"
EVIL = "<img src=x onerror=document.title='owned'>\u202egpj.jpg"
LIMIT = 150_000  # bytes of an upload
PHOTOS = 62

expect.set_options(timeout=8_000)


@dataclass(frozen=True)
class Site:
    address: str
    engine: Any
    photos: Path


def chromium(playwright: Playwright) -> str | None:
    """Path of a Chromium: Playwright's own or the system's."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = [playwright.chromium.executable_path, *(shutil.which(name) for name in names)]
    return next((path for path in found if path and os.path.exists(path)), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = chromium(playwright)
        if path is None:
            pytest.skip("no Chromium here: apt-get install chromium, or playwright install chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
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


Serve = Callable[..., Site]


@pytest.fixture(scope="module")
def serve(collection: tuple[Path, Path]) -> Iterator[Serve]:
    """Starts the real server on a free port, in a thread."""
    import uvicorn

    from brivl_search.engine import Engine
    from brivl_search.server import Settings, create_app

    folder, index = collection
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(**settings: Any) -> Site:
        engine = Engine(index)
        engine.encoder = StubEncoder()
        engine.encoder.calibration = Calibration(slope=12.0, intercept=-6.0)
        app = create_app(engine, Settings(max_upload_bytes=LIMIT, **settings))
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
    for server, thread in running:
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def site(serve: Serve) -> Site:
    return serve()


Open = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, site: Site) -> Iterator[Open]:
    """Opens the page in a fresh window. Nothing may ask another server or make the browser complain."""
    contexts: list[Any] = []
    complaints: list[str] = []
    strangers: list[str] = []

    def start(where: str = "", at: Site = site, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, "locale": "en-GB", **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(8_000)

        def heard(message: Any) -> None:
            # The browser itself reports answers such as 404, which some tests provoke.
            if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
                complaints.append(message.text)

        def asked(request: Any) -> None:
            if not request.url.startswith((at.address, "blob:", "data:")):
                strangers.append(request.url)

        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", asked)
        page.goto(at.address + where)
        return page

    yield start
    for context in contexts:
        context.close()
    assert complaints == []
    assert strangers == []


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


def test_a_chinese_query_by_enter_with_match_scroll_and_address(open_page: Open) -> None:
    page = open_page()
    expect(page.locator("#collection")).to_contain_text("62 photos")
    expect(tiles(page)).to_have_count(24)  # some of the collection to begin with
    look_for(page, "红色的圆形")
    expect(tiles(page).first).to_have_attribute("title", re.compile("-red-circle"))
    expect(tiles(page).first.locator(".there img")).to_be_visible()
    first = page.locator("#grid li").first
    expect(first.locator(".match")).to_have_text(re.compile(r"^\d+(\.\d)?%$"))
    expect(first.locator(".score")).to_have_text(re.compile(r"^[01]\.\d{3}$"))
    width = first.locator(".meter").evaluate("node => Number(getComputedStyle(node).getPropertyValue('--part'))")
    assert 0.5 < width <= 1
    assert "q=%E7%BA%A2" in page.url
    page.mouse.wheel(0, 20_000)
    expect(tiles(page)).to_have_count(PHOTOS)
    assert len(set(names(page))) == PHOTOS
    expect(page.locator("#end")).to_be_visible()
    scrolled = page.evaluate("scrollY")
    tiles(page).last.click()
    page.get_by_role("link", name="More like this").click()
    expect(page.locator(".chip.key")).to_be_visible()
    assert page.evaluate("scrollY") < scrolled
    page.go_back()
    expect(page.locator("#detail-figures .score")).to_be_visible()
    page.keyboard.press("Escape")
    expect(tiles(page)).to_have_count(PHOTOS)
    page.wait_for_function("least => scrollY >= least", arg=scrolled - 5)
    again = open_page(page.url.rpartition("/")[2])
    expect(again.get_by_role("searchbox")).to_have_value("红色的圆形")
    expect(tiles(again).first).to_have_attribute("title", re.compile("-red-circle"))


def test_a_dropped_picture_finds_photos_then_captions(open_page: Open) -> None:
    page = open_page()
    picture = draw("blue", "triangle")
    path = Path("dropped.jpg")
    drop(page, path.name, encoded(picture, "JPEG"))
    expect(tiles(page).first).to_have_attribute("title", re.compile("-blue-triangle"))
    expect(page.locator(".chip.picture img")).to_be_visible()
    page.get_by_role("radio", name="Captions").check()
    expect(page.locator("#grid.texts .words").first).to_have_text(re.compile("blue|蓝色"))
    expect(page.locator("#grid.texts .words").first).to_have_text(re.compile("triangle|三角形"))
    expect(page.locator("#grid.texts .match").first).to_be_visible()
    page.go_back()
    expect(page.locator("#grid.images")).to_be_visible()
    expect(page.get_by_role("radio", name="Photos")).to_be_checked()
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("no longer here")


def test_a_picked_or_pasted_picture_and_words_beside_it(open_page: Open, site: Site) -> None:
    page = open_page()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Search with a picture").click()
    chooser.value.set_files(sorted(site.photos.glob("*-green-ring*"))[0])
    expect(tiles(page).first).to_have_attribute("title", re.compile("-green-ring"))
    look_for(page, "a red ring")
    expect(page.locator("#status")).to_contain_text("shown")
    expect(page.locator("#grid .score").first).to_be_visible()
    expect(page.locator("#grid .match")).to_have_count(0)  # of a sum no match is known
    page.evaluate(
        """content => {
            const carried = new DataTransfer();
            carried.items.add(new File([new Uint8Array(content)], "pasted.png", { type: "image/jpeg" }));
            const options = { clipboardData: carried, bubbles: true, cancelable: true };
            document.dispatchEvent(new ClipboardEvent("paste", options));
        }""",
        list(encoded(draw("yellow", "cross"), "JPEG")),
    )
    expect(tiles(page).first).to_have_attribute("title", re.compile("-yellow-cross"))
    expect(page.get_by_role("searchbox")).to_have_value("")


def test_terms_are_added_turned_weighed_and_removed(open_page: Open) -> None:
    page = open_page("?q=a+red+ring")
    expect(tiles(page).first).to_have_attribute("title", re.compile("red-ring|evil-caption"))
    page.get_by_role("button", name="more of").click()
    page.get_by_label("More of:").fill("绿色的圆环")
    page.keyboard.press("Enter")
    chip = page.locator(".chip")
    expect(chip).to_have_count(1)
    chip.get_by_role("combobox").select_option("3")
    expect(tiles(page).first).to_have_attribute("title", re.compile("-green-ring"))
    assert "term=3%3At%3A" in page.url
    chip.get_by_role("button", name="Counts for").click()
    expect(chip).to_have_class(re.compile("minus"))
    expect(tiles(page).first).not_to_have_attribute("title", re.compile("green-ring"))
    page.go_back()
    expect(chip).to_have_class(re.compile("plus"))
    chip.get_by_role("button", name="Remove").click()
    expect(chip).to_have_count(0)
    expect(tiles(page).first).to_have_attribute("title", re.compile("red-ring|evil-caption"))
    page.get_by_role("button", name="less of").click()
    page.get_by_label("Less of:").press("Escape")
    expect(page.get_by_label("Less of:")).to_be_hidden()


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
    matches = [float(text.rstrip("%")) for text in page.locator("#grid .match").all_inner_texts()]
    assert matches and min(matches) >= 90


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
    scripts = Path(__file__).parents[2] / "brivl_search/server/static"
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
