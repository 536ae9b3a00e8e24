"""A captioner's words: a part of the tokenizer's pieces, and how they become a text that people read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from brivl_search.encoders.brivl.tokenizer import TextTokenizer
from brivl_search.encoders.captions.model import Captioner

_WIDE = "\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef"  # Chinese characters and their punctuation
_ENDS = re.compile(r"[\s.。!！;；]+$")
_RULES = (
    (re.compile(f" ?([{_WIDE}]) ?"), r"\1"),
    (re.compile(r" ([.,!?;:)%])"), r"\1"),
    (re.compile(r"([(#$]) "), r"\1"),
    (re.compile(r" ?' (s|t|d|m|re|ve|ll)\b"), r"'\1"),
    (re.compile(r"(?<=\w) - (?=\w)"), "-"),
    (re.compile(r'" ([^"]*?) "'), r'"\1"'),
)


def without_end(text: str) -> str:
    """A caption without the full stop at its end: some writers put one, some do not."""
    return _ENDS.sub("", text)


def choose_words(tokenizer: TextTokenizer, texts: Sequence[str], least: int) -> list[int]:
    """Ids of the pieces that occur at least `least` times in texts, after those of [UNK] and the end."""
    counts = Counter(number for ids in tokenizer.ids(texts) for number in ids[1:-1])
    special = (int(tokenizer.unknown_id or 0), int(tokenizer.end_id or 0))
    return [*special, *sorted(number for number, n in counts.items() if n >= least and number not in special)]


class Words:
    """Texts → a captioner's words and back."""

    def __init__(self, tokenizer: TextTokenizer, kept: Sequence[int]) -> None:
        """`kept`: the tokenizer's id of each word (`Captioner.kept`)."""
        self.tokenizer = tokenizer
        pieces = {number: piece for piece, number in tokenizer.words().items()}
        self.pieces = [pieces.get(number, "") for number in kept]
        self._row = {number: row for row, number in enumerate(kept)}

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """The words of each text; what it does not know is `Captioner.UNKNOWN`."""
        return [[self._row.get(number, Captioner.UNKNOWN) for number in ids[1:-1]] for ids in self.tokenizer.ids(texts)]

    def text(self, rows: Sequence[int]) -> str:
        """Words → a text: no space in Chinese, and English begins with a capital."""
        joined = ""
        for row in rows:
            piece = self.pieces[row]
            joined += piece[2:] if piece.startswith("##") else f" {piece}"
        joined = joined.strip()
        for pattern, instead in _RULES:
            joined = pattern.sub(instead, joined)
        return joined[:1].upper() + joined[1:]
