"""Every training module that a page, a docstring or a recipe names exists."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from tests.support.folders import REPO

PLACES = (  # the changelog tells of names that were
    "README.md",
    "CONTRIBUTING.md",
    "docs/**/*.md",
    "train/**/*.*",
    "benchmarks/*.*",
    "brivl_search/**/*.md",
    "brivl_search/**/*.py",
)
COMMAND = re.compile(r"-m (train(?:\.\w+)+)")
FILE = re.compile(r"(?<![\w/])train/[\w./-]+\.(?:py|toml|md)\b")


def pages() -> list[Path]:
    files = {file for place in PLACES for file in REPO.glob(place) if file.suffix in (".md", ".py", ".toml")}
    return sorted(files)


def named(pattern: re.Pattern[str]) -> dict[str, str]:
    """What the pattern finds, each with a page that names it."""
    return {
        found: str(page.relative_to(REPO)) for page in pages() for found in pattern.findall(page.read_text("utf-8"))
    }


def test_commands_name_modules_that_exist() -> None:
    commands = named(COMMAND)
    assert {"train.pretrain", "train.pairs.prepare", "train.mini.distill"} <= set(commands)
    missing = {}
    for module, page in commands.items():
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:  # a folder on the way is missing
            found = None
        if found is None:
            missing[module] = page
    assert not missing


def test_files_that_are_named_exist() -> None:
    files = named(FILE)
    assert {"train/pretrain.py", "train/recipes/brivl-mini.toml", "train/README.md"} <= set(files)
    assert not {file: page for file, page in files.items() if not (REPO / file).is_file()}


@pytest.mark.parametrize("stale", ["prepare_pairs", "score_pairs", "pair_texts.py", "pair_images.py"])
def test_former_names_are_gone(stale: str) -> None:
    assert not [str(page.relative_to(REPO)) for page in pages() if stale in page.read_text("utf-8")]
