"""recall@k of an index over its own caption pairs, exactly and through the index; or of an encoder over a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from brivl_search.corpus.captions import Dataset
from brivl_search.corpus.decode_pool import decode_all, default_workers
from brivl_search.corpus.walk import ImageFile
from brivl_search.encoders.base import Encoder
from brivl_search.errors import CorpusError, IndexIncompatibleError, UsageError
from brivl_search.index import IndexReader, Modality
from brivl_search.metrics import DEFINITION, Recall, ranks_exact, ranks_in_lists, summarize

BATCH = 256
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Evaluation:
    """Both directions; `through_index` is None where there is no index (a dataset folder)."""

    source: str
    fields: tuple[str, ...]
    encoder: str
    ks: tuple[int, ...]
    text_to_image: dict[str, Recall | None]
    image_to_text: dict[str, Recall | None]
    definition: str = DEFINITION
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """What `--format json` prints."""

        def direction(measured: dict[str, Recall | None]) -> dict[str, Any]:
            some = next(value for value in measured.values() if value is not None)
            out: dict[str, Any] = {"queries": some.queries, "candidates": some.candidates}
            for name, value in measured.items():
                if value is not None:
                    recall = {f"R@{k}": round(v, 3) for k, v in value.recall.items()}
                    out[name] = {**recall, "median_rank": value.median_rank}
                else:
                    out[name] = None
            return out

        rest = {key: asdict(self)[key] for key in ("source", "fields", "encoder", "definition", "notes")}
        return {
            **rest,
            "text_to_image": direction(self.text_to_image),
            "image_to_text": direction(self.image_to_text),
        }


def parse_ks(text: str) -> tuple[int, ...]:
    """ "1,5,10" → (1, 5, 10).

    Raises:
        UsageError: not a list of whole numbers from 1 on.
    """
    try:
        ks = tuple(dict.fromkeys(int(part) for part in text.split(",") if part.strip()))
    except ValueError:
        ks = ()
    if not ks or min(ks) < 1:
        raise UsageError(f"--recall-at {text}: give whole numbers from 1 on, such as --recall-at 1,5,10")
    return tuple(sorted(ks))


def evaluate_dataset(
    dataset: Dataset, encoder: Encoder, ks: Sequence[int], advance: Advance, *, workers: int | None = None
) -> Evaluation:
    """Embeds a dataset's images and captions and ranks all against all.

    Raises:
        CorpusError: an image of the dataset cannot be read; a figure over the rest would be another figure.
    """
    texts, owners = dataset.pairs()
    images = np.concatenate(list(_embed_images(dataset, encoder, advance, workers)))
    parts = []
    for start in range(0, len(texts), BATCH):
        parts.append(encoder.encode_texts(texts[start : start + BATCH]))
        advance(len(parts[-1]))
    vectors = np.concatenate(parts)
    of_image: list[list[int]] = [[] for _ in dataset.images]
    for number, owner in enumerate(owners):
        of_image[owner].append(number)
    notes = []
    if dataset.without_captions:
        notes.append(f"{dataset.without_captions} images without such captions are left out")
    return Evaluation(
        source=dataset.folder,
        fields=dataset.fields,
        encoder=encoder.name,
        ks=tuple(ks),
        text_to_image={"exact": _exact(vectors, images, [[owner] for owner in owners], ks), "through_index": None},
        image_to_text={"exact": _exact(images, vectors, of_image, ks), "through_index": None},
        notes=notes,
    )


def _embed_images(dataset: Dataset, encoder: Encoder, advance: Advance, workers: int | None) -> Iterator[np.ndarray]:
    files = [ImageFile(path, 0, 0) for path in dataset.images]
    batch: list[np.ndarray] = []
    for decoded in decode_all(files, encoder.pixels, workers=default_workers() if workers is None else workers):
        if decoded.pixels is None:
            raise CorpusError(f"{decoded.file.path}: {decoded.reason} {decoded.detail}".rstrip())
        batch.append(decoded.pixels)
        if len(batch) == 64:
            yield encoder.encode_images(np.stack(batch))
            advance(len(batch))
            batch = []
    if batch:
        yield encoder.encode_images(np.stack(batch))
        advance(len(batch))


def evaluate_index(reader: IndexReader, ks: Sequence[int], fields: Sequence[str] | None = None) -> Evaluation:
    """Ranks the index's own captions against its images: over all rows exactly, and as the index answers.

    Raises:
        UsageError: the index holds no captions, or none of the `fields`.
        IndexIncompatibleError: a shard is damaged; figures without it would be wrong.
    """
    if reader.damage:
        raise IndexIncompatibleError(reader.damage[0])
    images, texts = _Side(reader, "image"), _Side(reader, "text")
    if not len(texts.rows):
        raise UsageError(
            f"the index at {reader.directory} holds no captions to evaluate with: put captions.jsonl beside the images "
            "and build again, or use --dataset FOLDER"
        )
    there = list(dict.fromkeys(str(record["field"]) for record in texts.records))
    missing = [name for name in fields or () if name not in there]
    if missing:
        raise UsageError(f"--captions {missing[0]}: the index holds captions of {', '.join(there)}")
    texts.keep([record["field"] in (fields or there) for record in texts.records])
    number = {record["path"]: i for i, record in enumerate(images.records)}
    texts.keep([record["image"] in number for record in texts.records])
    owners = [number[record["image"]] for record in texts.records]
    of_image: dict[int, list[int]] = {}
    for i, owner in enumerate(owners):
        of_image.setdefault(owner, []).append(i)
    with_captions = sorted(of_image)
    to_text = [of_image[i] for i in with_captions]
    to_image = [[owner] for owner in owners]
    image_queries = images.vectors[with_captions]
    notes = []
    if len(with_captions) < len(images.records):
        notes.append(f"{len(images.records) - len(with_captions)} images have no caption: candidates, not queries")
    return Evaluation(
        source=str(reader.directory),
        fields=tuple(fields or there),
        encoder=reader.info.encoder.name,
        ks=tuple(ks),
        text_to_image={
            "exact": _exact(texts.vectors, images.vectors, to_image, ks),
            "through_index": _through(texts.vectors, images, to_image, ks),
        },
        image_to_text={
            "exact": _exact(image_queries, texts.vectors, to_text, ks),
            "through_index": _through(image_queries, texts, to_text, ks),
        },
        notes=notes,
    )


class _Side:
    """One modality of an index in memory: vectors float32 (n, dim), records, and where each row lies."""

    def __init__(self, reader: IndexReader, modality: Modality) -> None:
        self.reader, self.modality = reader, modality
        blocks = list(reader.vectors(modality))
        dim = reader.info.encoder.dim
        self.vectors = np.concatenate([np.zeros((0, dim), np.float32), *(b[0].astype(np.float32) for b in blocks)])
        self.rows = [(shard, int(row)) for _, shard, rows in blocks for row in rows]
        self.records = [record for _, _, record in reader.records(modality)]
        self.whole = True

    def keep(self, wanted: Sequence[bool]) -> None:
        """Leaves only these rows, here and for `search`."""
        if all(wanted):
            return
        self.whole = False
        self.vectors = self.vectors[np.asarray(wanted, dtype=bool)]
        self.rows = [row for row, yes in zip(self.rows, wanted, strict=True) if yes]
        self.records = [record for record, yes in zip(self.records, wanted, strict=True) if yes]

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Numbers of the kept rows as the index ranks them, int64 (n, k), -1 padded."""
        allow = None
        if not self.whole:
            allow = [np.zeros(shard.rows, dtype=bool) for shard in self.reader.info.of(self.modality).shards]
            for shard, row in self.rows:
                allow[shard][row] = True
        number = {place: i for i, place in enumerate(self.rows)}
        out = np.full((len(queries), k), -1, dtype=np.int64)
        for start in range(0, len(queries), BATCH):
            found = self.reader.search(self.modality, queries[start : start + BATCH], k, allow=allow)
            for i, (shards, rows) in enumerate(zip(found.shards, found.rows, strict=True)):
                places = [number[int(s), int(r)] for s, r in zip(shards, rows, strict=True) if r >= 0]
                out[start + i, : len(places)] = places
        return out


def _exact(queries: np.ndarray, candidates: np.ndarray, truth: Sequence[Sequence[int]], ks: Sequence[int]) -> Recall:
    return summarize(ranks_exact(queries, candidates, truth), ks, len(candidates))


def _through(queries: np.ndarray, side: _Side, truth: Sequence[Sequence[int]], ks: Sequence[int]) -> Recall:
    """As the index answers. Ranks past the deepest list count as one place behind it, for the median too."""
    depth = min(max(*ks, 100), len(side.rows))
    return summarize(ranks_in_lists(side.search(queries, depth), truth), ks, len(side.rows))
