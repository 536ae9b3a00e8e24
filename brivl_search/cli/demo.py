"""The main job on real photographs that come inside other packages' wheels: scikit-image's and scikit-learn's.

The queries, and what they should find, were written down before any result was seen; they stay as they are.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brivl_search.cli import texts
from brivl_search.display import elided, harmless, nearby
from brivl_search.errors import DependencyError, install_hint

if TYPE_CHECKING:
    from brivl_search.search.hits import Hit

PATH_CELLS = 46
CLOSE = 0.02  # of cosine: a second hit as near to the first is shown too


@dataclass(frozen=True)
class Question:
    """A query of the demo.

    Attributes:
        text: what is asked.
        right: names of the pictures that show it; empty: none does, and it is right to say that nothing fits.
    """

    text: str
    right: tuple[str, ...] = ()


QUERIES = (
    Question("一只猫", ("chelsea.png",)),
    Question("a cat looking at the camera", ("chelsea.png",)),
    Question("一个穿橙色衣服的女人", ("astronaut.png",)),
    Question("an astronaut in a space suit", ("astronaut.png",)),
    Question("桌子上的一杯咖啡", ("coffee.png",)),
    Question("a rocket on the launch pad", ("rocket.jpg",)),
    Question("红色的花", ("flower.jpg",)),
    Question("中国的寺庙", ("china.jpg",)),
    Question("a motorcycle in a garage", ("motorcycle_left.png", "motorcycle_right.png")),
    Question("草地", ("grass.png",)),
    Question("a brick wall", ("brick.png",)),
    Question("硬币", ("coins.png",)),
    Question("一头大象"),
    Question("a birthday cake with candles"),
)


@dataclass(frozen=True)
class Answered:
    """A question, the hits that are shown for it, and whether the first is what was expected."""

    question: Question
    hits: list[Hit]
    right: bool

    @classmethod
    def of(cls, question: Question, found: Sequence[Hit]) -> Answered:
        """From the two best hits."""
        close = [hit for hit in found[1:2] if hit.score >= found[0].score - CLOSE]
        if not question.right:
            return cls(question, [*found[:1], *close], bool(found) and not any(hit.fits for hit in found))
        names = [os.path.basename(hit.path) for hit in found[:1]]
        return cls(question, [*found[:1], *close], names[:1] != [] and names[0] in question.right)


def photo_folders() -> list[Path]:
    """Folders of the pictures that ship with scikit-image and scikit-learn, found without importing either.

    Raises:
        DependencyError: one of them is not installed.
    """
    folders = []
    for package, inside in (("skimage", "data"), ("sklearn", "datasets/images")):
        spec = importlib.util.find_spec(package)
        folder = Path(spec.origin).parent / inside if spec is not None and spec.origin else None
        if folder is None or not folder.is_dir():
            raise DependencyError(
                f"the demo shows photographs that ship with scikit-image and scikit-learn: {install_hint('demo')}"
            )
        folders.append(folder)
    return folders


def short(path: str) -> str:
    """A path of the demo for people: relative or from `~`, in few cells, its middle left out."""
    return elided(harmless(nearby(os.path.abspath(path))), PATH_CELLS)


def answers_table(answers: Sequence[Answered]) -> Any:
    """A line a hit: the query, its match, the picture, and whether it is the expected one."""
    from rich.text import Text

    from brivl_search.output import match_bar, table

    out = table()
    for name in ("query", "match", "picture", ""):
        out.add_column(name, no_wrap=True)
    for one in answers:
        for at, hit in enumerate(one.hits):
            match = Text("") if hit.match is None else match_bar(hit.match)
            verdict = texts.verdict(one.right, bool(one.question.right)) if at == 0 else ""
            out.add_row(Text(one.question.text if at == 0 else ""), match, Text(short(hit.path)), Text(verdict))
    return out
