"""Texts → token ids as immich makes them, by the `tokenizers` library alone."""

from __future__ import annotations

import string
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.spelling import Spelling
from brivl_search.encoders.hf.words import spelling, unknown
from brivl_search.encoders.immich.files import Description
from brivl_search.encoders.immich.layout import TOKENIZER
from brivl_search.encoders.open_clip import language
from brivl_search.encoders.runtimes.tokens import FastTokens, Reading, read_file
from brivl_search.errors import EncoderError

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_LANGUAGES = (language.DEFAULT, "zho_Hans")  # a tokenizer with both of these tokens is NLLB's


class Tokens:
    """The tokenizer of a folder. Threads may share it."""

    def __init__(self, about: Description) -> None:
        """Reads tokenizer.json.

        Raises:
            EncoderError: it is damaged, or does not have the token that texts are filled up with.
        """
        self.about = about
        path = about.folder / TOKENIZER
        self._whole = read_file(path)
        pad = self._whole.token_to_id(about.padding)
        if pad is None:
            raise EncoderError(f"{path} does not have the pad_token {about.padding!r}")
        unknown_id = self._whole.token_to_id(about.unknown) if about.unknown else None
        self._words = FastTokens(self._whole, Reading(about.context, "length", pad, unknown=unknown_id))
        self._speaks = all(self._whole.token_to_id(one) is not None for one in _LANGUAGES)

    def __call__(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Token ids, and a mask that is 1 where no padding is: int64 (n, context) each."""
        found = self._words.batch([self.clean(text) for text in texts])
        ids, mask = found["input_ids"], found["attention_mask"]
        if self._speaks:
            # The tokenizer itself marks every text as of one language. open_clip, which trained these models, puts
            # that of the text in its place; immich, which puts it behind, gets both.
            for row, text in enumerate(texts):
                spoken = self._whole.token_to_id(self.about.language or language.language(text))
                if spoken is not None:
                    ids[row, 0] = spoken
        return ids, mask

    def clean(self, text: str) -> str:
        """A text as immich cleans it (its `clean_text`)."""
        text = " ".join(text.split())
        return text.translate(_NO_PUNCTUATION).lower() if self.about.canonical else text

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, however many are kept."""
        return self._words.lengths([self.clean(text) for text in texts])

    @cached_property
    def spelling(self) -> Spelling:
        """How texts are spelled for it."""
        return spelling(self._words)

    def unknown(self, texts: Sequence[str]) -> list[list[str]]:
        """The words of each text that it does not know, each once."""
        return unknown(self._words, [self.clean(text) for text in texts])
