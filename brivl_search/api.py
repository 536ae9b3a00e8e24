"""The Python API: `open_index` and what it gives.

    from brivl_search import open_index

    with open_index("indexes/default") as index:
        for hit in index.query("一只在草地上的狗", k=3):
            print(hit.path, hit.score, hit.match, hit.record)

Errors are those of `brivl_search.errors`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from brivl_search.errors import BrivlSearchError, UsageError
from brivl_search.index import IndexInfo
from brivl_search.search.dedupe import ALIKE
from brivl_search.search.engine import Engine
from brivl_search.search.filters import Filter
from brivl_search.search.hits import Hit
from brivl_search.search.options import SearchOptions
from brivl_search.search.queries import TARGETS, compose

if TYPE_CHECKING:
    from PIL.Image import Image

Picture: TypeAlias = "str | os.PathLike[str] | bytes | Image"


class Index:
    """An open index that answers queries; use `open_index`. Threads may share it.

    It follows the index on disk: what a build publishes is answered from the next query on.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        self._engine.reader.close()

    @property
    def info(self) -> IndexInfo:
        """Rows, shards, encoder, tuning of the generation that is open."""
        return self._engine.reader.info

    @property
    def damage(self) -> tuple[str, ...]:
        """A line for each shard that is missing or damaged, and so not searched."""
        return self._engine.reader.damage

    def query(
        self,
        text: str | None = None,
        *,
        image: Picture | Sequence[Picture] = (),
        plus: str | Sequence[str] = (),
        minus: str | Sequence[str] = (),
        minus_image: Picture | Sequence[Picture] = (),
        k: int = 10,
        target: str = "auto",
        under: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
        glob: str | Sequence[str] = (),
        after: str | None = None,
        before: str | None = None,
        min_size: str | None = None,
        where: dict[str, str] | Sequence[str] = (),
        dedupe: bool | float = False,
        min_score: float | None = None,
        min_match: float | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        """The k nearest images or captions, best first.

        Args:
            text: Chinese or English; "2:snow" weighs double.
            image: pictures: a path, the content of a file, or a PIL image.
            plus: more texts.
            minus: texts to stay away from.
            minus_image: pictures to stay away from.
            k: hits, or groups of them with `dedupe`.
            target: "images", "texts", or "auto": captions for a single picture if the index has any, else images.
            under: folders; only images in them.
            glob: patterns for names, or for whole paths if they hold a slash.
            after: "2024", "2024-05", "2024-05-03T18:00"; by EXIF time, else the file's.
            before: the same.
            min_size: "800x600" pixels.
            where: {"split": "test"} or ["split=test"], of the caption file's fields.
            dedupe: fold near-identical hits into the best of them (`Hit.duplicates`); a number: from this cosine on.
            min_score: least cosine.
            min_match: least probability.
            exact: compare with every row.

        Raises:
            UsageError: something above is not what it should be, or the index holds none of the target.
            IndexIncompatibleError: nothing is left of the index, or it was built again with another encoder.
        """
        fields = [f"{name}={value}" for name, value in where.items()] if isinstance(where, dict) else _many(where)
        if target not in TARGETS:
            raise UsageError(f"target is {target!r}: give images, texts or auto")
        options = SearchOptions(
            k,
            exact,
            min_score=min_score,
            min_match=min_match,
            filter=Filter.of(
                under=_many(under), glob=_many(glob), after=after, before=before, min_size=min_size, where=fields
            ),
            alike=(ALIKE if dedupe is True else float(dedupe)) if dedupe else None,
        )
        asked = compose(
            text,
            image=[_file(one) for one in _many(image)],
            plus=_many(plus),
            minus=_many(minus),
            minus_image=[_file(one) for one in _many(minus_image)],
        )
        return self._engine.query(asked, options, target=TARGETS[target])

    def query_many(self, texts: Sequence[str], *, k: int = 10, target: str = "auto") -> list[list[Hit]]:
        """`query` for many texts, embedded and searched together. Raises the first error of any."""
        answers = self._engine.query_many([compose(text) for text in texts], SearchOptions(k), target=TARGETS[target])
        for answer in answers:
            if isinstance(answer, BrivlSearchError):
                raise answer
        return [answer for answer in answers if not isinstance(answer, BrivlSearchError)]


def open_index(
    path: str | os.PathLike[str] = "indexes/default", *, encoder: str | None = None, device: str = "auto"
) -> Index:
    """Open an index for queries.

    Args:
        path: its folder.
        encoder: name or folder of the encoder; None: the one it was built with.
        device: torch device of the towers.

    Raises:
        IndexMissingError: there is none.
        IndexIncompatibleError: it is damaged, or of another format.
    """
    return Index(Engine(Path(path), encoder=encoder, device=device, stays=True))


def _many(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]


def _file(picture: Any) -> str | os.PathLike[str] | bytes:
    """A path or the content of a file as they are, a PIL image as the file it would make; UsageError for the rest."""
    if isinstance(picture, str | os.PathLike | bytes):
        return picture
    if not hasattr(picture, "save"):
        raise UsageError(f"image is a {type(picture).__name__}: give a path, bytes or a PIL image")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
