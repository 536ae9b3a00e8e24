"""Texts → token ids by the `tokenizers` library alone, as transformers' and open_clip's tokenizers give them.

An export of a text tower carries the tokenizer that transformers would use, as one tokenizer.json, and how it is used.
Both are compared with the original on made texts when the export is made.
"""

from __future__ import annotations

import html
import string
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from brivl_search.errors import EncoderError

FILE = "tokenizer.json"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Reading:
    """How a tokenizer is used.

    Attributes:
        length: most tokens of a text.
        pad_to: rows are padded to the "longest" of a batch, or all to the full "length".
        pad: id of the padding.
        pad_left: it stands before the text.
        cut_left: of a text that is too long, the end is kept.
        end: a text that is cut ends in this id; None: the tokenizer sees to it.
        blank: this id becomes 0; None: no id does.
        unknown: id of what the vocabulary does not have; None: there is none.
        short: if all texts of a batch have at most so many tokens, rows are padded to this length; None: never.
        clean: open_clip's cleaning before it: "whitespace", "lower", "canonicalize"; "": none.
    """

    length: int
    pad_to: Literal["longest", "length"]
    pad: int
    pad_left: bool = False
    cut_left: bool = False
    end: int | None = None
    blank: int | None = None
    unknown: int | None = None
    clean: str = ""
    short: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_file(path: Path) -> Any:
    """The `tokenizers.Tokenizer` of a tokenizer.json, which neither cuts nor pads.

    Raises:
        EncoderError: the file cannot be read.
    """
    from tokenizers import Tokenizer

    try:
        found = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exceptions
        raise EncoderError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from None
    found.no_padding()
    found.no_truncation()
    return found


class FastTokens:
    """A tokenizer of `read_file`. It answers the calls that the encoders make of transformers' own.

    Threads may share it.
    """

    is_fast = True

    def __init__(self, tokenizer: Any, reading: Reading) -> None:
        self.reading, self.unk_token_id = reading, reading.unknown
        self._whole = tokenizer

    @cached_property
    def _cut(self) -> Any:
        """The tokenizer that cuts, made for the first text that is too long: it takes as long as reading the file."""
        from tokenizers import Tokenizer

        cutting = Tokenizer.from_str(self._whole.to_str())
        cutting.enable_truncation(self.reading.length, direction="left" if self.reading.cut_left else "right")
        return cutting

    def _rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of cleaned texts, none longer than `length`."""
        length, end = self.reading.length, self.reading.end
        rows = [one.ids for one in self._whole.encode_batch(list(texts))]
        long = [at for at, row in enumerate(rows) if len(row) > length]
        if end is not None:
            for at in long:
                rows[at] = [*rows[at][: length - 1], end]
        elif long:
            for at, one in zip(long, self._cut.encode_batch([texts[at] for at in long]), strict=True):
                rows[at] = one.ids
        return rows

    def batch(self, texts: Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """`input_ids` and `attention_mask`, int64 (n, T)."""
        reading = self.reading
        rows = self._rows([cleaned(text, reading.clean) for text in texts])
        longest = max(map(len, rows), default=0)
        wide = reading.length if reading.pad_to == "length" else longest
        if reading.short is not None and longest <= reading.short:
            wide = reading.short
        ids = np.full((len(rows), wide), reading.pad, dtype=np.int64)
        mask = np.zeros((len(rows), wide), dtype=np.int64)
        for at, row in enumerate(rows):
            place = slice(wide - len(row), wide) if reading.pad_left else slice(len(row))
            ids[at, place], mask[at, place] = row, 1
        if reading.blank is not None:
            ids[ids == reading.blank] = 0
        return {"input_ids": ids, "attention_mask": mask}

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, however many are kept."""
        return [len(one.ids) for one in self._whole.encode_batch([cleaned(one, self.reading.clean) for one in texts])]

    def __call__(
        self,
        texts: str | Sequence[str],
        *,
        add_special_tokens: bool = True,
        return_offsets_mapping: bool = False,
        truncation: bool = False,
        verbose: bool = False,
    ) -> dict[str, Any]:
        """Whole texts → `input_ids`, and `offset_mapping` if it is asked for."""
        if truncation:
            raise ValueError("whole texts only: `batch` cuts them")
        return read_whole(self._whole, texts, add_special_tokens, return_offsets_mapping)


def read_whole(tokenizer: Any, texts: str | Sequence[str], special: bool, offsets: bool) -> dict[str, Any]:
    """What a tokenizer of transformers answers for whole texts, by one of `tokenizers` that neither cuts nor pads.

    Args:
        tokenizer: the `tokenizers.Tokenizer`.
        texts: one, whose rows come without a list around them, or several.
        special: with the tokens around a text.
        offsets: with `offset_mapping`.
    """
    one = isinstance(texts, str)
    found = tokenizer.encode_batch([texts] if one else list(texts), add_special_tokens=special)
    out = {"input_ids": [each.ids for each in found]}
    if offsets:
        out["offset_mapping"] = [each.offsets for each in found]
    return {key: rows[0] for key, rows in out.items()} if one else out


def cleaned(text: str, how: str) -> str:
    """A text as open_clip's `get_clean_fn(how)` gives it; "": as it is."""
    if not how:
        return text
    import ftfy

    plain = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    if how == "canonicalize":
        plain = plain.replace("_", " ").translate(_NO_PUNCTUATION).lower()
    plain = " ".join(plain.split())
    return plain.lower() if how == "lower" else plain


def save(tokenizer: Any, folder: Path) -> bool:
    """Writes the tokenizer.json of a tokenizer of transformers; False if it is none of the `tokenizers` library."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not getattr(tokenizer, "is_fast", False) or backend is None:
        return False
    backend.save(str(folder / FILE))
    return True
