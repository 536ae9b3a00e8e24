"""Messages of the library in the words of the command line."""

from __future__ import annotations

import re

import pytest

from brivl_search.output.words import OPTIONS, as_options
from tests.support.folders import REPO


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("`min_score` 2: give less", "--min-score 2: give less"),
        ("leave out `truncate_dim` (its vectors have 8)", "leave out --truncate-dim (its vectors have 8)"),
        ("mend it with `repair`", "mend it with brivl-search verify --repair"),
        ("`templates` 'x', `k` and `keys`", "--template 'x', --top-k and --key"),
        ("`hf download x --local-dir F` and `openssl rand`", "`hf download x --local-dir F` and `openssl rand`"),
        ("/photos/`where`.jpg and a/`image`/b", "/photos/`where`.jpg and a/`image`/b"),
    ],
)
def test_arguments_become_options(message: str, shown: str) -> None:
    assert as_options(message) == shown


def test_commands_name_the_index_where_it_is_known() -> None:
    shown = as_options("no index: build one with: `build_index`", {"index": "indexes/x"})
    assert shown == "no index: build one with: brivl-search build-index FOLDER --index indexes/x"
    assert as_options("`repair`", {"folder": "x"}) == "brivl-search verify --repair"


def test_every_option_of_the_table_exists() -> None:
    sources = "\n".join(path.read_text("utf-8") for path in (REPO / "brivl_search" / "cli").rglob("*.py"))
    for name, option in OPTIONS.items():
        flag = option.split()[-1]
        derived = rf"\b{flag.removeprefix('--').replace('-', '_')}: "  # typer makes the option of the parameter
        assert f'"{flag}"' in sources or re.search(derived, sources), (name, flag)
