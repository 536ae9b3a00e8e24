"""Which words the tokenizers of transformers know: word pieces, sentence pieces, bytes; and how texts are spelled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny_hf import (
    KINDS,
    checkpoints_fixture,  # noqa: F401 - the fixture `checkpoints`
    load,
)

BY_BYTES = {"siglip", "siglip2"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_fancy_spelling_has_the_plain_one_s_vector(checkpoints: dict[str, Path], kind: str) -> None:
    encoder = load(checkpoints[kind])
    for fancy, plain in (("ｄｏｇ", "dog"), ("𝐝𝐨𝐠", "dog"), ("d\u200bog\ufeff", "dog"), ("３", "3")):
        assert encoder.spelled([fancy]) == [plain]
        np.testing.assert_array_equal(encoder.encode_texts([fancy]), encoder.encode_texts([plain]))
    for text in ("a red dog", "一只狗，在草地上。"):
        assert encoder.spelled([text]) in ([text], [text.replace("，", ",").replace("。", ".")])


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_words(checkpoints: dict[str, Path], kind: str) -> None:
    encoder = load(checkpoints[kind])
    known, unknown, both = encoder.unknown_words(["red dog", "🐶", "dog 🐶 red 🐶"])
    assert known == []
    # The small CLIP tokenizer here has letters alone; the published ones have every byte, as SigLIP's.
    assert unknown == both == ([] if kind in BY_BYTES else ["🐶"])
