"""Every error code that the server can send has words on the page, in both languages."""

from __future__ import annotations

import re

import pytest

from brivl_search.server.protocol.codes import CODES, TYPES
from tests.support.folders import REPO

STATIC = REPO / "brivl_search/server/static"
SAID = (STATIC / "said.js").read_text("utf-8")
WORDS = {
    language: dict(
        re.findall(r'^  (\w+): "(.*)",$', (STATIC / f"words_{language}.js").read_text("utf-8"), re.MULTILINE)
    )
    for language in ("en", "zh")
}
# Names of kinds of trouble, for what has no better name: the page adds the server's own line.
GENERAL = {*TYPES.values(), "internal"} - {"starting", "overloaded"}


def kinds_and_words() -> dict[str, tuple[str, str]]:
    """Code → (kind of trouble, key of the words that explain it; "" for the kind's own)."""
    own = SAID[SAID.index("const ERRORS") : SAID.index("const SENTENCES")]
    found = {
        code: (kind, key)
        for code, kind, key in re.findall(r'^  (\w+): \(.*?\) => \[.*?"(\w+)", \{[^}]*\}(?:, \["(\w+)")?', own, re.M)
    }
    table = SAID[SAID.index("const SENTENCES") : SAID.index("const KIND_OF")]
    for kind, codes in re.findall(r"^  (\w+): \[(.*?)\]", table, re.M | re.S):
        found |= {code: (kind, f"c_{code}") for code in re.findall(r'"(\w+)"', codes)}
    notes = SAID[SAID.index("const NOTES") :]
    return found | dict.fromkeys(re.findall(r"^  (\w+): \(", notes, re.M), ("empty", ""))


def test_both_languages_say_the_same_things() -> None:
    assert WORDS["en"].keys() == WORDS["zh"].keys()
    for key, words in WORDS["en"].items():
        places = [set(re.findall(r"\{(\w+)\}", words)) for words in (words, WORDS["zh"][key])]
        assert places[0] == places[1], key
    chinese = [key for key, words in WORDS["zh"].items() if key.startswith("c_") and not re.search("[一-鿿]", words)]
    assert chinese == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_code_has_words(language: str) -> None:
    words, known = WORDS[language], kinds_and_words()
    assert set(known) - set(CODES) == set()
    assert set(CODES) - set(known) - GENERAL == set()
    for code, (kind, key) in known.items():
        heading = [f"e_{kind}"] if kind not in ("no_texts",) else ["e_no_texts", "e_no_photos"]
        assert set(heading) <= words.keys(), code
        assert not key or key.startswith("r_") or key in words, code


def test_a_sentence_fills_in_what_the_server_sends_with_its_code() -> None:
    for code, what in CODES.items():
        for place in re.findall(r"\{(\w+)\}", WORDS["zh"].get(f"c_{code}", "")):
            assert re.search(rf"[;,] {place}\b", what), (code, place)
