"""Which words a tokenizer of transformers knows, and how texts are spelled for it.

A tokenizer of bytes (CLIP's) knows everything. Its unknown token is one that no text gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from brivl_search.corpus.spelling import Spelling
from brivl_search.errors import DependencyError, EncoderError, install_hint


def unreadable(name: str, tokenizer: str, error: Exception) -> EncoderError | DependencyError:
    """What to raise where transformers could not load a tokenizer: it raises what its parts raise.

    Args:
        name: of the model.
        tokenizer: what could not be read, for the message.
        error: that was raised.
    """
    reason = " ".join(str(error).split())
    if isinstance(error, ImportError) or "sentencepiece" in reason.lower() or "protobuf" in reason.lower():
        return DependencyError(f"the tokenizer of {name} needs sentencepiece: {install_hint('hf')}")
    return EncoderError(f"{tokenizer} cannot be read: {reason[:300]}")


def spelling(tokenizer: Any) -> Spelling:
    """How texts are spelled for a tokenizer; one that knows every character gets punctuation as it is."""
    if _unknown_id(tokenizer) is None:
        return Spelling()

    def knows(char: str) -> bool:
        (ids,) = _ids(tokenizer, [char])
        return bool(ids) and tokenizer.unk_token_id not in ids

    return Spelling(knows)


def unknown(tokenizer: Any, texts: Sequence[str]) -> list[list[str]]:
    """The words of each text that a tokenizer does not know, in order, each once."""
    id_ = _unknown_id(tokenizer)
    if id_ is None or not texts:
        return [[] for _ in texts]
    found = []
    for text, ids in zip(texts, _ids(tokenizer, texts), strict=True):
        found.append(list(dict.fromkeys(_words(tokenizer, text, id_))) if id_ in ids else [])
    return found


def _words(tokenizer: Any, text: str, id_: int) -> list[str]:
    if getattr(tokenizer, "is_fast", False):
        whole = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False)
        pairs = zip(whole["input_ids"], whole["offset_mapping"], strict=True)
        return [text[start:end].strip() for one, (start, end) in pairs if one == id_]
    words = text.split()
    return [word for word, ids in zip(words, _ids(tokenizer, words), strict=True) if id_ in ids]


def _unknown_id(tokenizer: Any) -> int | None:
    """The token of what is unknown; None if no text gives it: every character is known by its bytes."""
    id_: int | None = getattr(tokenizer, "unk_token_id", None)
    if id_ is None:
        return None
    strange = "\U0001f436\u16a0\U00012000\U0010fffd"  # a dog, a rune, a cuneiform sign, a private character
    return id_ if any(id_ in ids for ids in _ids(tokenizer, list(strange))) else None


def _ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)[
        "input_ids"
    ]
    return ids
