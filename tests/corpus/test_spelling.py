"""How a text is read: NFKC, nothing invisible, plain forms of what a vocabulary lacks, ordinary text untouched."""

from __future__ import annotations

import pytest

from brivl_search.corpus.spelling import Spelling, nothing_known, visible

KNOWN = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789'\"-.,/~[]()!?:;，。！？、（）狗恤只三一±€")
word_pieces, every_byte = Spelling(KNOWN.__contains__), Spelling()


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("ＤＯＧ", "DOG"),
        ("𝐝𝐨𝐠", "dog"),
        ("𝔡𝕠𝚐", "dog"),
        ("ⓓⓞⓖ", "dog"),
        ("ﬁsh and ﬂowers", "fish and flowers"),
        ("①Ⅷ", "1VIII"),
        ("Ｔ恤", "T恤"),
        ("３只狗", "3只狗"),
        ("⼀只狗", "一只狗"),
        ("e\u0301", "é"),
        ("d\u200bo\u00adg\ufeff", "dog"),
        ("\u202edog\u202c\u2066\u2069", "dog"),
        ("狗\ufe0e\ufe0f\U000e0100", "狗"),
        ("do\x00g\x1b\x7f\x9f", "dog"),
        ("dog\u3164\uffa0\u115f", "dog"),
        ("a\u3000b\u00a0c\td", "a b c d"),
    ],
)
def test_what_every_model_reads(written: str, read: str) -> None:
    assert word_pieces(written) == every_byte(written) == read


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("it’s", "it's"),
        ("it´s", "it's"),
        ("“狗”", '"狗"'),
        ("a—b", "a-b"),
        ("狗…", "狗..."),
        ("【狗】", "[狗]"),
        ("½", "1/2"),
        ("5 ㎏™", "5 kgTM"),
        ("dog🐶", "dog 🐶"),
        ("3€", "3€"),
    ],
)
def test_what_a_vocabulary_lacks_gets_its_plain_form_and_bytes_keep_it(written: str, read: str) -> None:
    assert word_pieces(written) == read and word_pieces(read) == read
    assert every_byte(written) == {"½": "1⁄2", "5 ㎏™": "5 kg™"}.get(written, written)


@pytest.mark.parametrize("text", ["三只狗，！？。、（）", "a dog's (big) ball - 3.5", "±", "น้ำ", "ㅋㅋ 개"])
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert word_pieces(text) == every_byte(text) == text


def test_twice_is_once_for_every_character() -> None:
    for code in (*range(0x20, 0x3400), *range(0xF900, 0x10000), *range(0x1D400, 0x1F800)):
        if not 0xD800 <= code <= 0xDFFF:
            for spelling in (word_pieces, every_byte):
                once = spelling(f"a{chr(code)}b")
                assert spelling(once) == once, hex(code)


@pytest.mark.parametrize(
    ("text", "unknown", "nothing"),
    [
        ("ＤＯＧ", [], False),
        ("собака", ["собака"], True),
        ("🐶!", ["🐶"], True),
        ("dog 🐶", ["🐶"], False),
        ("🐶🐶 собака", ["🐶", "собака"], True),
        ("㎏Ж", ["kgЖ"], True),
        ("…", [], False),
        ("дом д", ["дом", "д"], True),
    ],
)
def test_whether_anything_is_known(text: str, unknown: list[str], nothing: bool) -> None:
    assert nothing_known(text, unknown) is nothing


def test_what_can_be_seen() -> None:
    assert visible(" \u200b狗\u00ad \u2800") == "狗" and visible("\ufe0f\u200d") == ""
    assert visible("\u0600") == "\u0600"  # a format character that is drawn
