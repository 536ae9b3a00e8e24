"""Texts as the bundled model reads them: fancy spellings are plain ones, ordinary text is untouched."""

from __future__ import annotations

import numpy as np
import pytest

from brivl_search.encoders import bundled, load_encoder
from brivl_search.encoders.base import KnowsWords, Spells, spelled, unknown_words
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.errors import UsageError
from tests.support.stub import StubEncoder

ORDINARY = (
    "一只在草地上的狗",
    "在雪地中奔跑的狗，很可爱！（三只）",
    "照片里有：猫、狗和《书》；好吗？是的。",
    "a dog on grass",
    "A man's (red) T-shirt, size XL - 3.5 m!",
    "two women\tat a café\nin Zürich",
    "3D、4K 和 WiFi",
)


@pytest.fixture(scope="module")
def mini() -> BriVLEncoder:
    if "brivl-mini" not in bundled():
        pytest.skip("no bundled model")
    encoder = load_encoder("brivl-mini", device="cpu")
    assert isinstance(encoder, BriVLEncoder)
    return encoder


def test_ordinary_text_has_the_tokens_it_always_had(mini: BriVLEncoder) -> None:
    library = mini.tokenizer._tokenizer
    assert mini.tokenizer.ids(ORDINARY) == [one.ids for one in library.encode_batch(list(ORDINARY))]
    assert mini.fingerprint == "brivl-37516d9e9c1a4dc14a402602"


@pytest.mark.parametrize(
    ("fancy", "plain"),
    [
        ("ＤＯＧ", "dog"),
        ("𝐝𝐨𝐠 ﬁsh", "dog fish"),
        ("①Ⅷ", "1VIII"),
        ("Ｔ恤", "T恤"),
        ("３只狗", "3只狗"),
        ("a dog’s ball", "a dog's ball"),
        ("“狗”", '"狗"'),
        ("d\u200bo\u00adg\ufeff\ufe0f", "dog"),
        ("dog—cat…", "dog-cat..."),
    ],
)
def test_a_fancy_spelling_has_the_plain_one_s_vector(mini: BriVLEncoder, fancy: str, plain: str) -> None:
    assert mini.tokenizer.ids([fancy]) == mini.tokenizer.ids([plain])
    one, other = mini.encode_texts([fancy]), mini.encode_texts([plain])
    np.testing.assert_array_equal(one, other)
    assert mini.unknown_words(fancy) == [[]] and mini.cut_tokens(fancy) == [0]


def test_both_towers_read_alike(mini: BriVLEncoder) -> None:
    """NumPy and torch get the same tokens, from the same place."""
    ids = mini.tokenizer.ids(["ＤＯＧ’s"])
    by_numpy = mini._numpy_text_tower.encode(ids)
    by_torch = mini.encode_texts(["dog's"])
    hubness = mini.checkpoint.hubness
    np.testing.assert_allclose(by_numpy if hubness is None else hubness.texts(by_numpy), by_torch, atol=2e-3)


def test_unknown_words_are_named_each_once(mini: BriVLEncoder) -> None:
    assert mini.unknown_words(["собака dog собака 🐶", "a dog", "犇dog🐕", "ｄｏｇ"]) == [
        ["собака", "🐶"],
        [],
        ["犇", "🐕"],
        [],
    ]
    assert mini.unknown_words([]) == []
    assert isinstance(mini, KnowsWords) and isinstance(mini, Spells)
    assert mini.spelled(["dog🐶"]) == ["dog 🐶"]


def test_what_is_no_text_is_refused(mini: BriVLEncoder) -> None:
    with pytest.raises(UsageError, match=r"text 2 is not UTF-8 text, .*GBK"):
        mini.encode_texts(["dog", b"\xb9\xb7".decode("utf-8", "surrogateescape")])


def test_an_encoder_that_cannot_say_knows_everything() -> None:
    stub = StubEncoder()
    assert unknown_words(stub, ["собака", "🐶"]) == [[], []] and spelled(stub, ["ＤＯＧ"]) == ["ＤＯＧ"]
