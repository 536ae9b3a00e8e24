"""Token ids by the `tokenizers` library alone are those of transformers and of open_clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brivl_search.encoders import load_encoder
from brivl_search.encoders.hf.words import spelling, unknown
from brivl_search.encoders.runtimes import made, tokens
from brivl_search.errors import EncoderError
from tests.support.tiny_hf import KINDS, make_hf

TEXTS = [
    *made.texts(12),
    "",
    "dog",
    "Ｔ恤 ﬁsh \u200bzero\u200bwidth",
    "🐶 [CLS] [MASK] <s> <|endoftext|> <end_of_text> &amp; under_score",
    "草地上的狗 " * 60,
]


@pytest.fixture(scope="module", params=KINDS)
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of BERT's (chinese_clip), CLIP's, XLM-R's (altclip, metaclip_2), T5's and Gemma's kind of tokenizer."""
    folder = make_hf(tmp_path_factory.mktemp("hf") / request.param, request.param)
    return load_encoder(f"hf:{folder}", runtime="torch", device="cpu")


def fast_of(encoder: Any, folder: Path) -> tokens.FastTokens:
    reading = encoder.save_tokens(folder)
    assert reading is not None
    return tokens.FastTokens(tokens.read_file(folder / tokens.FILE), reading)


def test_ids_masks_and_lengths_are_those_of_transformers(encoder: Any, tmp_path: Path) -> None:
    fast = fast_of(encoder, tmp_path)
    for texts in (TEXTS, TEXTS[:1], TEXTS[-1:], TEXTS[2:5]):
        for name, values in encoder.tokenized(texts).items():
            np.testing.assert_array_equal(fast.batch(texts)[name], values, err_msg=name)
    whole = encoder.tokenizer(TEXTS, truncation=False, verbose=False)["input_ids"]
    assert fast(TEXTS)["input_ids"] == whole and fast.lengths(TEXTS) == [len(ids) for ids in whole]


def test_a_second_tokenizer_is_made_only_for_a_text_that_is_cut(encoder: Any, tmp_path: Path) -> None:
    """Reading one takes 0.1 s of a query (CLIP's), or half a second (XLM-R's)."""
    fast = fast_of(encoder, tmp_path)
    fast.batch(["dog"]), fast.lengths(TEXTS), fast(TEXTS)
    assert "_cut" not in vars(fast)
    found = fast.batch([TEXTS[-1], "dog"])
    assert "_cut" in vars(fast) or fast.reading.end is not None
    for name, values in encoder.tokenized([TEXTS[-1], "dog"]).items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_spelling_and_unknown_words_are_those_of_transformers(encoder: Any, tmp_path: Path) -> None:
    fast = fast_of(encoder, tmp_path)
    ours, theirs = spelling(fast), spelling(encoder.tokenizer)
    assert [ours(text) for text in TEXTS] == [theirs(text) for text in TEXTS]
    assert unknown(fast, TEXTS) == unknown(encoder.tokenizer, TEXTS)


def test_a_slow_tokenizer_has_no_file(tmp_path: Path) -> None:
    class Slow:
        is_fast = False

    assert not tokens.save(Slow(), tmp_path) and not list(tmp_path.iterdir())


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / tokens.FILE).write_text('{"half": ')
    with pytest.raises(EncoderError, match=r"tokenizer\.json cannot be read"):
        tokens.read_file(tmp_path / tokens.FILE)


@pytest.mark.parametrize("clean", ["whitespace", "lower", "canonicalize"])
def test_cleaning_is_open_clips(clean: str) -> None:
    theirs = pytest.importorskip("open_clip").tokenizer.get_clean_fn(clean)
    assert [tokens.cleaned(text, clean) for text in TEXTS] == [theirs(text) for text in TEXTS]


@pytest.mark.parametrize("kind", ["vit", "siglip", "xlm_roberta", "mobileclip", "clipa"])
def test_ids_are_those_of_open_clip(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    from tests.support.tiny_open_clip import make_open_clip

    encoder: Any = load_encoder(f"open_clip:{make_open_clip(tmp_path / kind, kind)}", runtime="torch", device="cpu")
    fast = fast_of(encoder, tmp_path)
    np.testing.assert_array_equal(fast.batch(TEXTS)["input_ids"], encoder.tokenized(TEXTS)["input_ids"])
    assert fast.lengths(TEXTS) == encoder.tokens.lengths(TEXTS)


def test_languages_by_script_stay_with_open_clip(tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    from tests.support.tiny_open_clip import make_open_clip

    folder = make_open_clip(tmp_path / "nllb", "nllb_siglip")
    encoder: Any = load_encoder(f"open_clip:{folder}", runtime="torch", device="cpu")
    assert encoder.save_tokens(tmp_path) is None
