"""The Python API: `open_index` and what it gives.

    from brivl_search import open_index

    with open_index("indexes/default") as index:
        print(index, len(index))
        for hit in index.query("一只在草地上的狗", k=3):
            print(hit.path, hit.score, hit.match, hit.record)

Errors are those of `brivl_search.errors`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from brivl_search.display import printable
from brivl_search.embedding.query_pictures import picture_source
from brivl_search.encoders.runtimes.choice import Precision, Runtime
from brivl_search.errors import (
    BrivlSearchError,
    NothingFitsWarning,
    UnknownWordsWarning,
    UnreadPictureWarning,
    UsageError,
)
from brivl_search.index import IndexInfo
from brivl_search.search.count import Count
from brivl_search.search.dedupe import ALIKE
from brivl_search.search.engine import Engine
from brivl_search.search.filters import Filter
from brivl_search.search.hits import Hit
from brivl_search.search.options import SearchOptions
from brivl_search.search.queries import TARGETS, Query, Target, compose
from brivl_search.search.words import say_unknown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from brivl_search.ingest.maintenance import RemoveReport
    from brivl_search.ingest.options import BuildOptions
    from brivl_search.ingest.report import BuildReport

Picture: TypeAlias = "str | os.PathLike[str] | bytes | Image | NDArray[np.uint8]"
AnyPath: TypeAlias = "str | os.PathLike[str]"


class Index:
    """An open index that answers queries, and can be changed; use `open_index` to get one. Threads may share it.

    It follows the index on disk: what a build publishes is answered from the next query on. `len(index)` is the number
    of its images. Use it as a context manager, or `close` it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._told: set[str] = set()  # pictures that a matcher could not read

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Images that can be found."""
        return self.info.image.rows

    def __bool__(self) -> bool:
        """True: an index without images is an index all the same."""
        return True

    def __repr__(self) -> str:
        info = self.info
        return (
            f"<Index {os.fspath(info.directory)!r}: {info.image.rows:,} images, {info.text.rows:,} captions, "
            f"encoder {info.encoder.name}>"
        )

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
        rerank_with: str | None = None,
        rerank_top: int = 32,
    ) -> list[Hit]:
        """The k nearest images or captions, best first.

        Args:
            text: Chinese or English. Alone, it is taken as it stands; beside other terms "2:snow" weighs double.
            image: pictures: a path, the content of a file, a PIL image, or uint8 (height, width, 3) RGB.
            plus: more texts.
            minus: texts to stay away from.
            minus_image: pictures to stay away from.
            k: hits, or groups of them with `dedupe`.
            target: "images", "texts", or "auto": captions for a single picture if the index has any, else images.
            under: folders; only images in them.
            glob: patterns for names, or for whole paths if they hold a slash.
            after, before: "2024", "2024-05", "2024-05-03T18:00"; by EXIF time, else the file's.
            min_size: "800x600" pixels.
            where: {"split": "test"} or ["split=test"], of the caption file's fields.
            dedupe: fold near-identical hits into the best of them (`Hit.duplicates`); a number: from this cosine on.
            min_score: least cosine.
            min_match: least chance that a hit is right.
            exact: compare with every row.
            rerank_with: a matcher that re-orders the first hits of one text, or of one picture among captions:
                brivl-mini-rerank, its folder, or hf:ORG/NAME. `Hit.score` and `Hit.match` stay the encoder's.
            rerank_top: how many hits it re-orders.

        Warns:
            UnknownWordsWarning: the encoder does not know words of the texts. If it knows none, there is no `match`.
            NothingFitsWarning: there are no hits, because the filter lets nothing of the index through.
            UnreadPictureWarning: the matcher could not read a picture, which keeps its place. Each is named once.

        Raises:
            UsageError: something above is not what it should be: a text that is not UTF-8, a picture that is not
                there, a folder or a field that the index does not have, a date that is none; or the index holds none
                of the target.
            IndexIncompatibleError: nothing is left of the index, or it was built again with another encoder.
            EncoderError: the matcher cannot be loaded, or reads the regions of another image tower.
        """
        options = SearchOptions(
            k,
            exact,
            min_score=min_score,
            min_match=min_match,
            filter=_filter(under, glob, after, before, min_size, where),
            alike=(ALIKE if dedupe is True else float(dedupe)) if dedupe else None,
            rerank_with=rerank_with,
            rerank_top=rerank_top,
        )
        asked = compose(
            text,
            image=[picture_source(one) for one in _many(image)],
            plus=_many(plus),
            minus=_many(minus),
            minus_image=[picture_source(one) for one in _many(minus_image)],
        )
        hits = self._engine.query(asked, options, target=_target(target))
        self._warn(asked)
        if rerank_with is not None:
            self._warn_unread(rerank_with)
        if not hits and (reason := self._engine.why_nothing(asked, options, target=_target(target))):
            warnings.warn(NothingFitsWarning(reason.message), stacklevel=2)
        return hits

    def count(
        self,
        text: str | None = None,
        *,
        image: Picture | Sequence[Picture] = (),
        target: str = "auto",
        under: AnyPath | Sequence[AnyPath] = (),
        glob: str | Sequence[str] = (),
        after: str | None = None,
        before: str | None = None,
        min_size: str | None = None,
        where: dict[str, str] | Sequence[str] = (),
    ) -> Count:
        """About how many images fit a text, or captions a picture: the sum of the chances of all hits.

        Args:
            text: Chinese or English.
            image: instead, a picture.
            target: as of `query`.
            under, glob, after, before, min_size, where: as of `query`.

        Returns:
            `fit`, about so many; `rows`, of how many.

        Raises:
            UsageError: as of `query`; or the encoder does not know the chances of hits.
            IndexIncompatibleError: as of `query`.
        """
        wanted = _filter(under, glob, after, before, min_size, where)
        asked = compose(text, image=[picture_source(one) for one in _many(image)])
        found = self._engine.count(asked, SearchOptions(filter=wanted), target=_target(target))
        self._warn(asked)
        return found

    def query_many(self, texts: Sequence[str], *, k: int = 10, target: str = "auto") -> list[list[Hit]]:
        """`query` for many texts, embedded and searched together. Raises the first error of any; warns for each."""
        asked = [compose(text) for text in texts]
        answers = self._engine.query_many(asked, SearchOptions(k), target=_target(target))
        for answer in answers:
            if isinstance(answer, BrivlSearchError):
                raise answer
        for query in asked:
            self._warn(query)
        return [answer for answer in answers if not isinstance(answer, BrivlSearchError)]

    def _warn_unread(self, matcher: str) -> None:
        unread = self._engine.reranker(matcher).unread
        for path in [path for path in unread if path not in self._told]:
            self._told.add(path)
            message = f"not re-ordered: {printable(path)}: {unread[path]}"
            warnings.warn(UnreadPictureWarning(message), stacklevel=3)

    def _warn(self, asked: Query) -> None:
        if words := self._engine.unknown_words(asked):
            message = say_unknown(words, not self._engine.knows_nothing(asked))
            warnings.warn(UnknownWordsWarning(message, words), stacklevel=3)

    # -- changes -------------------------------------------------------------------------------------------------

    def add(
        self,
        paths: AnyPath | Sequence[AnyPath],
        *,
        captions: Sequence[str] | None = None,
        include_hidden: bool | None = None,
        exclude: Sequence[str] | None = None,
        max_megapixels: float | None = None,
        workers: int | None = None,
    ) -> BuildReport:
        """Embed images and captions and add them; nothing is removed. They can be found when this returns.

        Args:
            paths: image files, folders of them, caption files (.jsonl), datasets.
            captions: fields of the caption files to index; None: as before, at first zh, en, captions.
            include_hidden: also files and folders beginning with a dot; None: as before, at first not.
            exclude: patterns as in .gitignore of what is passed over; None: as before, at first nothing.
            max_megapixels: skip larger images; None: as before, at first 178.
            workers: decoding processes; None: one for each CPU, 0: none.

        Returns:
            What was found, embedded, reused and skipped. An image that cannot be read is skipped, and is no error.

        Raises:
            UsageError: a path does not exist or is none of these.
            CorpusError: there is nothing to add under the paths.
            IndexBusyError: another process is writing the index.
        """
        from brivl_search.ingest.report import Silent
        from brivl_search.ingest.run import add

        options = _options(
            captions, exclude, include_hidden=include_hidden, max_megapixels=max_megapixels, workers=workers
        )
        report = add(_many(paths), self.info.directory, self._engine.encoder, options, Silent())
        self._engine.refresh()
        return report

    def sync(
        self,
        folders: AnyPath | Sequence[AnyPath] = (),
        *,
        captions: Sequence[str] | None = None,
        include_hidden: bool | None = None,
        exclude: Sequence[str] | None = None,
        keep_regions: str | None = None,
        max_megapixels: float | None = None,
        workers: int | None = None,
    ) -> BuildReport:
        """Bring the index in step with its folders: take in what is new or changed, forget what is gone.

        Args:
            folders: only these of its folders; none: all of them.
            captions, include_hidden, exclude, max_megapixels, workers: as of `add`.
            keep_regions: the matcher whose regions the index keeps from now on, "none" for none; None: as before.

        Returns:
            As of `add`, and how many images have vanished.

        Raises:
            UsageError: a folder or the matcher does not exist, or the index remembers no folder.
            EncoderError: the matcher does not fit the index's encoder.
            CorpusError: no images under the folders; nothing is changed.
            IndexBusyError: another process is writing the index.
        """
        from brivl_search.ingest.report import Silent
        from brivl_search.ingest.sync import sync

        options = _options(
            captions, exclude, include_hidden=include_hidden, max_megapixels=max_megapixels, workers=workers
        )
        options = replace(options, keep_regions=keep_regions)
        report = sync(self.info.directory, self._engine.encoder, options, Silent(), folders=_many(folders))
        self._engine.refresh()
        return report

    def remove(
        self,
        paths: AnyPath | Sequence[AnyPath] = (),
        *,
        under: AnyPath | Sequence[AnyPath] = (),
        keys: str | Sequence[str] = (),
    ) -> RemoveReport:
        """Forget images, and their captions with them; the files are left alone, and need not exist any more.

        Args:
            paths: image files, folders (then as `under`), and any other source of the index, which is forgotten too.
            under: folders; all that was indexed below them, at any depth.
            keys: `Hit.key` of items.

        Returns:
            How many images and captions are gone.

        Raises:
            UsageError: something named is not in the index; nothing is removed.
            IndexBusyError: another process is writing the index.
        """
        from brivl_search.ingest.maintenance import remove

        report = remove(self.info.directory, paths=_many(paths), under=_many(under), keys=_many(keys))
        self._engine.refresh()
        return report


def open_index(
    path: str | os.PathLike[str] = "indexes/default",
    *,
    encoder: str | None = None,
    device: str = "auto",
    runtime: Runtime = "auto",
    precision: Precision = "auto",
) -> Index:
    """Open an index for queries.

    Args:
        path: its folder.
        encoder: name or folder of the encoder; None: the one it was built with.
        device: torch device of the towers.
        runtime: what computes them: "torch", "onnx", "openvino" or "auto".
        precision: "fp32", "bf16", "int8" or "auto".

    Raises:
        IndexMissingError: there is none.
        IndexIncompatibleError: it is damaged, or of another format.
    """
    return Index(Engine(Path(path), encoder=encoder, device=device, runtime=runtime, precision=precision, stays=True))


def _target(name: str) -> Target:
    if name not in TARGETS:
        raise UsageError(f"target is {name!r}: give images, texts or auto")
    return TARGETS[name]


def _options(captions: Sequence[str] | None, exclude: Sequence[str] | None, **others: Any) -> BuildOptions:
    from brivl_search.ingest.options import BuildOptions

    return BuildOptions(
        exclude=None if exclude is None else tuple(_many(exclude)),
        caption_fields=None if captions is None else tuple(_many(captions)),
        **others,
    )


def _filter(
    under: AnyPath | Sequence[AnyPath],
    glob: str | Sequence[str],
    after: str | None,
    before: str | None,
    min_size: str | None,
    where: dict[str, str] | Sequence[str],
) -> Filter:
    fields = [f"{name}={value}" for name, value in where.items()] if isinstance(where, dict) else _many(where)
    return Filter.of(under=_many(under), glob=_many(glob), after=after, before=before, min_size=min_size, where=fields)


def _many(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]
