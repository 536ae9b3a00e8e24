"""What of a query's texts the encoder does not know.

A word tokenizer gives every word that it does not have the same token. A text of such words alone gets one constant
vector, and its scores say nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from brivl_search.corpus.spelling import nothing_known
from brivl_search.encoders.base import Encoder, unknown_words
from brivl_search.search.queries import Query

SHOWN = 8  # words that a message names
_LONGEST = 40  # characters of one


def unknown_of(encoder: Encoder, query: Query) -> list[str]:
    """The words of a query's texts that the encoder does not know, as it reads them, each once."""
    texts = query.texts
    found = unknown_words(encoder, texts) if texts else []
    return list(dict.fromkeys(word for words in found for word in words))


def is_empty_to(encoder: Encoder, text: str) -> bool:
    """Whether an encoder knows no word of a text."""
    (words,) = unknown_words(encoder, [text])
    return nothing_known(text, words)


def say_unknown(words: Sequence[str], known: bool, done: str = "searched") -> str:
    """A sentence that names words that the encoder does not know.

    Args:
        words: at least one.
        known: whether it knows others of the same text.
        done: what became of the text: "searched" or "embedded".
    """
    if known:
        return f"the encoder does not know {named(words)}: the rest of the text was {done}"
    what = "the hits mean" if done == "searched" else "its vector means"
    return f"the encoder knows no word of the text ({named(words)}): {what} nothing"


def named(words: Sequence[str]) -> str:
    """The first few words, each cut where it is long."""
    shown = ", ".join(word if len(word) <= _LONGEST else word[:_LONGEST] + "…" for word in words[:SHOWN])
    return shown + (f" and {len(words) - SHOWN:,} more" if len(words) > SHOWN else "")
