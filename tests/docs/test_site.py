"""The documentation holds together: its navigation, its links, the routes it names, and no other host."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.documents import PAGES, links
from tests.support.folders import REPO

DOCS = REPO / "docs"


def test_the_readme_can_be_read_in_a_sitting() -> None:
    assert len((REPO / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_every_page_is_in_the_navigation() -> None:
    navigation = (REPO / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    named = re.findall(r":\s+(\S+\.md)\s*$", navigation, re.MULTILINE)
    there = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")]
    hooks = (DOCS / "hooks.py").read_text(encoding="utf-8")
    there += re.findall(r'^    "\S+\.md": "(\S+\.md)",$', hooks, re.MULTILINE)
    assert sorted(named) == sorted(there)


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        if re.match(r"https?://|mailto:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in _anchors(file), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_lists_and_tables_begin_after_a_blank_line(page: Path) -> None:
    """A forge shows them all the same; the site would run them into the paragraph above."""
    item = re.compile(r"\s*(?:\d+\.|[-*]) ")
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    lines = text.splitlines()
    for above, line in pairwise(lines):
        if item.match(line) and line[0] != " ":
            assert not above.strip() or item.match(above) or above[0] == " ", line
        if line.startswith("|"):
            assert not above.strip() or above.startswith("|"), line


def test_every_route_is_documented() -> None:
    text = (DOCS / "http-api.md").read_text(encoding="utf-8")
    source = "\n".join(path.read_text("utf-8") for path in (REPO / "brivl_search/server/routes").glob("*.py"))
    routes = set(re.findall(r'@routes\.(?:get|post|delete)\(\s*"([^"]+)"', source))
    assert len(routes) >= 18
    assert [route for route in sorted(routes) if f" {route}`" not in text] == []


def test_the_version_is_in_the_changelog() -> None:
    import brivl_search

    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "brivl_search.__version__"}
    assert f"\n## {brivl_search.__version__} (" in (REPO / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_site_asks_no_other_host(tmp_path: Path) -> None:
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    asked = re.compile(r'<(?:link|script|img|iframe|source)\b[^>]*?(?:href|src)="(https?:)?//[^"]*"')
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= 20
    for page in pages:
        assert not asked.search(page.read_text(encoding="utf-8")), page
    styles = list((tmp_path / "site").rglob("*.css"))
    assert len(styles) >= 2
    for style in styles:
        assert not re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_links_to_files_of_the_repository_lead_to_their_pages(tmp_path: Path) -> None:
    """What works on a forge works in the site; a file that is no page keeps its words."""
    pytest.importorskip("mkdocs")
    from types import SimpleNamespace

    hooks = runpy.run_path(str(DOCS / "hooks.py"))

    def in_site(place: str, markdown: str) -> str:
        text: str = hooks["on_page_markdown"](markdown, page=SimpleNamespace(file=SimpleNamespace(src_uri=place)))
        return text

    assert in_site("promises.md", "[a](../indexes/README.md#staging)") == "[a](format.md#staging)"
    assert (
        in_site("zh/first-steps.md", "[a](../search.md) [b](../../CHANGELOG.md)")
        == "[a](../search.md) [b](../changelog.md)"
    )
    assert in_site("benchmarks.md", "![a](search.png)") == "![a](img/search.png)"
    assert in_site("contributing.md", "[a](docs/architecture.md)") == "[a](architecture.md)"
    assert in_site("training-manual.md", "[`EXPERIMENTS.md`](EXPERIMENTS.md)") == "`EXPERIMENTS.md`"
    assert in_site("faq.md", "[a](https://example.org/x) [b](#here)") == "[a](https://example.org/x) [b](#here)"
    fenced = "```bash\n[a](../README.md)\n```"
    assert in_site("faq.md", fenced) == fenced
