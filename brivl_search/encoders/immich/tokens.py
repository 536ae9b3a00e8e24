"""Texts → token ids as immich makes them, by the `tokenizers` library alone."""

from __future__ import annotations

import string
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.spelling import Spelling
from brivl_search.encoders.hf.words import spelling, unknown
from brivl_search.encoders.immich.files import Description
from brivl_search.encoders.immich.layout import TOKENIZER
from brivl_search.encoders.open_clip import language
from brivl_search.encoders.runtimes.tokens import read_whole
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
        self._whole, self._fitted = (self._read() for _ in range(2))
        pad = self._fitted.token_to_id(about.padding)
        if pad is None:
            raise EncoderError(f"{about.folder / TOKENIZER} does not have the pad_token {about.padding!r}")
        self._fitted.enable_padding(length=about.context, pad_token=about.padding, pad_id=pad)
        self._fitted.enable_truncation(max_length=about.context)
        self._whole.no_padding()
        self._whole.no_truncation()
        self._speaks = all(self._whole.token_to_id(one) is not None for one in _LANGUAGES)

    def _read(self) -> Any:
        from tokenizers import Tokenizer

        path = self.about.folder / TOKENIZER
        try:
            return Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exceptions
            raise EncoderError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from None

    def __call__(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Token ids, and a mask that is 1 where no padding is: int64 (n, context) each."""
        found = self._fitted.encode_batch([self.clean(text) for text in texts])
        ids = np.array([one.ids for one in found], dtype=np.int64).reshape(len(texts), self.about.context)
        mask = np.array([one.attention_mask for one in found], dtype=np.int64).reshape(ids.shape)
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
        return [len(one.ids) for one in self._whole.encode_batch([self.clean(text) for text in texts])]

    @cached_property
    def spelling(self) -> Spelling:
        """How texts are spelled for it."""
        return spelling(self._words)

    def unknown(self, texts: Sequence[str]) -> list[list[str]]:
        """The words of each text that it does not know, each once."""
        return unknown(self._words, [self.clean(text) for text in texts])

    @cached_property
    def _words(self) -> _Words:
        return _Words(self._whole, self._whole.token_to_id(self.about.unknown) if self.about.unknown else None)


class _Words:
    """A tokenizer of `tokenizers`, asked as one of transformers is (`brivl_search.encoders.hf.words`)."""

    is_fast = True

    def __init__(self, tokenizer: Any, unknown: int | None) -> None:
        self._tokenizer, self.unk_token_id = tokenizer, unknown

    def __call__(
        self, texts: str | list[str], *, add_special_tokens: bool, return_offsets_mapping: bool = False, **_: bool
    ) -> dict[str, Any]:
        return read_whole(self._tokenizer, texts, add_special_tokens, return_offsets_mapping)
