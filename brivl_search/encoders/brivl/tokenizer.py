"""WordPiece tokens for the text tower, by the `tokenizers` library. It is what transformers uses, and imports fast."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brivl_search.corpus.spelling import Spelling
from brivl_search.errors import EncoderError


class TextTokenizer:
    """The tokenizer of a checkpoint's `tokenizer.json` or of a BERT `vocab.txt`.

    Every text is spelled first as the vocabulary knows it (`brivl_search.corpus.spelling`), whoever asks.
    """

    def __init__(self, folder: Path, max_length: int) -> None:
        """Opens the tokenizer of a checkpoint folder.

        Raises:
            EncoderError: the folder holds neither file, or the file is damaged.
        """
        from tokenizers import Tokenizer
        from tokenizers.implementations import BertWordPieceTokenizer

        try:
            if (folder / "tokenizer.json").is_file():
                self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            elif (folder / "vocab.txt").is_file():
                self._tokenizer = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)._tokenizer
            else:
                raise EncoderError(f"{folder} has neither tokenizer.json nor vocab.txt")
        except EncoderError:
            raise
        except Exception as error:  # the library raises bare Exceptions
            raise EncoderError(f"the tokenizer in {folder} cannot be read: {error}") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.max_length = max_length
        self.pad_id = self._tokenizer.token_to_id("[PAD]") or 0
        self.mask_id = self._tokenizer.token_to_id("[MASK]")
        self.start_id = self._tokenizer.token_to_id("[CLS]")
        self.end_id = self._tokenizer.token_to_id("[SEP]")
        self.unknown_id = self._tokenizer.token_to_id(getattr(self._tokenizer.model, "unk_token", None) or "[UNK]")
        self.spelled = Spelling(self._knows)

    def _knows(self, char: str) -> bool:
        ids = self._tokenizer.encode(char, add_special_tokens=False).ids
        return bool(ids) and self.unknown_id not in ids

    @property
    def size(self) -> int:
        """Number of words in the vocabulary."""
        return int(self._tokenizer.get_vocab_size())

    def words(self) -> dict[str, int]:
        """The vocabulary: word → id."""
        return dict(self._tokenizer.get_vocab())

    def save(self, folder: Path) -> None:
        self._tokenizer.save(str(folder / "tokenizer.json"))

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text with [CLS] and [SEP], at most `max_length`. A text that is cut keeps its [SEP]."""
        whole = [encoding.ids for encoding in self._encode(texts)]
        return [ids if len(ids) <= self.max_length else [*ids[: self.max_length - 1], ids[-1]] for ids in whole]

    def cut(self, texts: Sequence[str]) -> list[int]:
        """How many tokens of each text do not fit."""
        return [max(len(e.ids) - self.max_length, 0) for e in self._encode(texts)]

    def unknown(self, texts: Sequence[str]) -> list[list[str]]:
        """The words of each text that the vocabulary does not have, in order, each once."""
        spelled = [self.spelled(text) for text in texts]
        out = []
        for text, encoding in zip(spelled, self._tokenizer.encode_batch(spelled), strict=True):
            pairs = zip(encoding.ids, encoding.offsets, strict=True)
            out.append(list(dict.fromkeys(text[start:end] for id_, (start, end) in pairs if id_ == self.unknown_id)))
        return out

    def _encode(self, texts: Sequence[str]) -> list[Any]:
        encoded: list[Any] = self._tokenizer.encode_batch([self.spelled(text) for text in texts])
        return encoded

    def batch(self, ids: Sequence[Sequence[int]], *, multiple: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Token ids → ids int64 (B, T) and mask bool (B, T); T: the longest row, rounded up to a `multiple`."""
        longest = max((len(row) for row in ids), default=1)
        return padded(ids, self.pad_id, min(-(-longest // multiple) * multiple, self.max_length))


def padded(ids: Sequence[Sequence[int]], pad_id: int, width: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of token ids → ids int64 (B, T) and mask bool (B, T), false for padding; T: the longest row, at least
    `width`."""
    width = max(max((len(row) for row in ids), default=1), width)
    out = np.full((len(ids), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(ids), width), dtype=bool)
    for i, row in enumerate(ids):
        out[i, : len(row)] = row
        mask[i, : len(row)] = True
    return out, mask
