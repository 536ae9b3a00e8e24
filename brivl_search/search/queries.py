"""What is searched for: a weighted sum of texts and pictures, and how people write it.

雪地里的狗          a text; alone, it is taken as it stands: 16:9 is no weight
2:雪                in a sum, the same with weight 2; there a text that begins so is written 1:2:雪
{"text": "狗", "image": "a.jpg", "plus": ["雪"], "minus": ["0.5:人"], "k": 5}      a line of a batch
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from brivl_search.corpus.encodings import NotText
from brivl_search.corpus.spelling import visible
from brivl_search.corpus.text import take_text
from brivl_search.errors import UsageError

Target = Literal["auto", "image", "text"]
Picture = str | os.PathLike[str] | bytes
TARGETS: dict[str, Target] = {"auto": "auto", "image": "image", "images": "image", "text": "text", "texts": "text"}

_WEIGHTED = re.compile(r"(\d+(?:\.\d+)?|\.\d+):(.*)", re.DOTALL)
_KEYS = ("text", "plus", "minus", "image", "minus_image", "k", "target")


@dataclass(frozen=True)
class Term:
    """A text or a picture and its share of the sum.

    Attributes:
        content: the text, or the picture: a path, or the content of a file.
        kind: which of the two.
        weight: below zero to stay away from it.
    """

    content: str | bytes
    kind: Literal["text", "image"] = "text"
    weight: float = 1.0

    def __str__(self) -> str:
        name = self.content if isinstance(self.content, str) else "picture"
        shown = name if self.kind == "text" else os.path.basename(name)
        return shown if abs(self.weight) == 1 else f"{abs(self.weight):g}:{shown}"


@dataclass(frozen=True)
class Query:
    """Σ weight · unit vector, scaled to unit length.

    Attributes:
        terms: at least one.
        k: hits wanted, None for what the search is told.
        target: what is to be found, None for what the search is told.
    """

    terms: tuple[Term, ...]
    k: int | None = None
    target: Target | None = None

    @property
    def single(self) -> Literal["text", "image"] | None:
        """The kind of the only term, None for a sum: only for the former a `match` is known."""
        return self.terms[0].kind if len(self.terms) == 1 and self.terms[0].weight > 0 else None

    @property
    def share_of_texts(self) -> float:
        """How strongly hits that are images are corrected for hubs: Σ weights of texts / Σ |weights|.

        A hub is a picture that is near to texts of all kinds. So each text of a sum brings its share of the correction,
        with the sign of its weight (what a hub gains by a it loses by - b), and a picture brings none.
        """
        texts = sum(term.weight for term in self.terms if term.kind == "text")
        return texts / sum(abs(term.weight) for term in self.terms)

    @property
    def texts(self) -> list[str]:
        return [term.content for term in self.terms if isinstance(term.content, str) and term.kind == "text"]

    def __str__(self) -> str:
        words = [("− " if term.weight < 0 else "+ ") + str(term) for term in self.terms]
        return " ".join(words).removeprefix("+ ")


def text_term(text: str, sign: int = 1, where: str = "the query") -> Term:
    """ "2:雪" → the text "雪" with weight 2 times `sign`: a term of a sum.

    Raises:
        UsageError: nothing is left of it, or it is not UTF-8; `where` names it.
    """
    weight, content = _weighted(text)
    return Term(take_text(content, where), "text", sign * weight)


def image_term(picture: Picture, sign: int = 1) -> Term:
    """ "0.5:a.jpg" → a picture with a weight, unless a file of that very name exists; bytes are a file's content."""
    if isinstance(picture, bytes):
        return Term(picture, "image", float(sign))
    name = os.fspath(picture)
    if os.path.exists(name):
        return Term(name, "image", float(sign))
    weight, content = _weighted(name)
    return Term(content, "image", sign * weight)


def _weighted(text: str) -> tuple[float, str]:
    found = _WEIGHTED.fullmatch(text.strip())
    return (float(found[1]), found[2]) if found else (1.0, text)


def compose(
    text: str | None = None,
    *,
    image: Iterable[Picture] = (),
    plus: Iterable[str] = (),
    minus: Iterable[str] = (),
    minus_image: Iterable[Picture] = (),
    k: int | None = None,
    target: Target | None = None,
) -> Query:
    """The query that the command line's options spell. A text alone is taken as it stands; in a sum it may be weighted.

    Raises:
        UsageError: nothing, or only what is to be avoided, is given; a text is empty or not UTF-8; k < 1.
    """
    pictures, more = [image_term(one) for one in image], [text_term(one, where="`plus`") for one in plus]
    less = [text_term(one, -1, "`minus`") for one in minus] + [image_term(one, -1) for one in minus_image]
    terms = []
    if text is not None:
        summed = pictures or more or less
        terms.append(text_term(text) if summed else Term(take_text(text, "the query")))
    terms += pictures + more
    if not terms:
        raise UsageError('nothing to look for: give a text or `image`, such as "a dog on grass"', code="nothing_asked")
    terms += less
    terms = [term for term in terms if term.weight]
    if not any(term.weight > 0 for term in terms):
        raise UsageError("every term has weight 0: give one a weight above it, such as 1:dog", code="nothing_asked")
    if k is not None and k < 1:
        raise UsageError(f"k is {k}: give a whole number from 1 on", code="bad_k", details={"k": k})
    return Query(tuple(terms), k, target)


def read_batch(lines: Iterable[tuple[int, str | NotText]]) -> Iterator[tuple[int, str, Query | UsageError]]:
    """(line number, its title, its query or what is wrong with it) of numbered lines; blank ones are left out.

    A line that could not be decoded is told as any other that cannot be answered.

    A line is a text, or a JSON object: `text`, `image`, `plus`, `minus`, `minus_image` (each a string or, but for
    `text`, a list of them), `k`, `target`.
    """
    for number, line in lines:
        if isinstance(line, NotText):
            yield number, "", UsageError(f"line {number}: {line}", code="not_utf8")
            continue
        line = line.removeprefix("\ufeff").strip()
        if not visible(line):
            continue
        try:
            query = _from_json(line) if line.startswith("{") else compose(line)
        except UsageError as error:
            yield number, line, UsageError(f"line {number}: {error}")
        else:
            yield number, str(query), query


def _from_json(line: str) -> Query:
    try:
        body = json.loads(line)
    except ValueError as error:
        raise UsageError(f"it begins with {{ and is no JSON object ({error})") from None
    if unknown := [key for key in body if key not in _KEYS]:
        raise UsageError(f"unknown key {unknown[0]!r}: the keys are {', '.join(_KEYS)}")
    lists: dict[str, list[str]] = {}
    for key in ("image", "plus", "minus", "minus_image"):
        value = body.get(key) or []
        lists[key] = value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise UsageError(f"`{key}` is neither a string nor a list of strings")
    text, k, target = body.get("text"), body.get("k"), body.get("target")
    if text is not None and not isinstance(text, str):
        raise UsageError("`text` is no string")
    if k is not None and (not isinstance(k, int) or isinstance(k, bool)):
        raise UsageError("`k` is no whole number")
    if target is not None and target not in TARGETS:
        raise UsageError(f"`target` is {target!r}: give images or texts")
    return compose(text, k=k, target=None if target is None else TARGETS[target], **lists)
