"""An encoder that does not know every word: Cyrillic and pictographs are unknown to it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from brivl_search.corpus.spelling import Spelling
from tests.support.stub import StubEncoder

_UNKNOWN = re.compile("[\u0400-\u04ff]+|[\U0001f300-\U0001faff]")


class WordEncoder(StubEncoder):
    """As a model with a vocabulary reads: spelled first, and unknown words all alike."""

    spelling = Spelling(lambda char: char.isascii() or "\u4e00" <= char <= "\u9fff")

    def spelled(self, texts: Sequence[str]) -> list[str]:
        return [self.spelling(text) for text in texts]

    def unknown_words(self, texts: Sequence[str]) -> list[list[str]]:
        return [list(dict.fromkeys(_UNKNOWN.findall(text))) for text in self.spelled(texts)]

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return super().encode_texts([_UNKNOWN.sub("[UNK]", text) for text in self.spelled(texts)])
