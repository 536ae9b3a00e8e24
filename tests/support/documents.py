"""The documentation's pages: their code blocks and links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.folders import REPO

ELSEWHERE = (  # pages of the site that lie beside what they describe
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    "brivl_search/models/brivl-mini/README.md",
    "indexes/README.md",
    "train/README.md",
)
PAGES = sorted([REPO / "README.md", *(REPO / page for page in ELSEWHERE), *(REPO / "docs").rglob("*.md")])

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, its language, and its text."""

    page: str
    language: str
    text: str


def blocks(language: str) -> list[Block]:
    """All blocks of a language, page by page, in order."""
    return [
        Block(str(page.relative_to(REPO)), found[1], found[2])
        for page in PAGES
        for found in _BLOCK.finditer(page.read_text(encoding="utf-8"))
        if found[1] == language
    ]


def commands(block: Block) -> list[str]:
    """The command lines of a bash block, without comments."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def links(page: Path) -> list[str]:
    """Where a page's links and pictures point to, outside of code."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return _LINK.findall(text)
