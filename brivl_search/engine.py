"""Queries → hits: a text or a picture goes through its tower, the index answers, and rows become records."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from brivl_search.corpus.images import load_pixels
from brivl_search.encoders.base import Encoder
from brivl_search.encoders.registry import load_encoder
from brivl_search.errors import EncoderError, ImageError, IndexIncompatibleError, IndexMissingError, UsageError
from brivl_search.index import IndexReader, Modality

Target = Literal["auto", "image", "text"]


@dataclass(frozen=True)
class Hit:
    """One answer.

    `score` is the cosine between query and row, `match` the probability that text and picture belong together (None
    where the encoder knows none, between two pictures or two texts, and for sums of several). `path` is the image's,
    for a caption its own image's. `duplicates` are the hits that `--dedupe` has folded into this one, best first.
    """

    rank: int
    score: float
    kind: Modality
    path: str
    text: str | None = None
    record: dict[str, Any] = field(default_factory=dict, repr=False)
    match: float | None = None
    duplicates: tuple[Hit, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """What `--format jsonl` prints."""
        row: dict[str, Any] = {"rank": self.rank, "score": round(self.score, 6)}
        if self.match is not None:
            row["match"] = round(self.match, 4)
        if self.kind == "text":
            row |= {"text": self.text, "field": self.record.get("field"), "image": self.path}
        else:
            row |= {"path": self.path, "width": self.record.get("width"), "height": self.record.get("height")}
        if self.duplicates:
            row["alike"] = len(self.duplicates)
            row["alike_paths"] = [hit.path for hit in self.duplicates]
        return row


@dataclass(frozen=True)
class SearchOptions:
    """How the index is searched; None leaves a value to the index's own tuning."""

    k: int = 10
    exact: bool = False
    nprobe: int | None = None
    rerank: int | None = None


class Engine:
    """An open index and the encoder that fits it. Towers load when first needed.

    Args:
        directory: the index.
        encoder: name of an encoder; None: the one the index was built with.
        device: torch device for the towers.

    Raises:
        IndexMissingError: no index there.
        IndexIncompatibleError: the index is damaged, or `encoder` is not the one it was built with.
    """

    def __init__(self, directory: Path, *, encoder: str | None = None, device: str = "auto") -> None:
        self.reader = IndexReader.open(directory)
        self._encoder_name, self._device = encoder, device

    def refresh(self) -> bool:
        """Switches to the generation published last, without a restart; says whether there was a newer one.

        Called before every search, and cheap: see `IndexReader.stale`. Searches under way keep the generation they
        began with. An index that is gone for the moment is answered from as it was.

        Raises:
            IndexIncompatibleError: it is damaged now, or of another encoder.
        """
        try:
            if not self.reader.stale():
                return False
            fresh = IndexReader.open(self.reader.directory)
        except IndexMissingError:
            return False
        if "encoder" in self.__dict__ and fresh.info.encoder.fingerprint != self.encoder.fingerprint:
            raise IndexIncompatibleError(
                f"the index at {fresh.directory} was built again with encoder {fresh.info.encoder.name!r}: open it anew"
            )
        self.reader = fresh
        return True

    @cached_property
    def encoder(self) -> Encoder:
        built_with = self.reader.info.encoder
        where = self.reader.directory
        try:
            encoder = load_encoder(self._encoder_name or built_with.name, device=self._device)
        except EncoderError as error:
            if self._encoder_name:
                raise
            raise IndexIncompatibleError(
                f"the index at {where} needs its encoder {built_with.name!r}, which cannot be loaded ({error}): "
                "give its new place with --encoder"
            ) from None
        if encoder.fingerprint != built_with.fingerprint:
            raise IndexIncompatibleError(
                f"the index at {where} is of encoder {built_with.name!r} (fingerprint {built_with.fingerprint}), and "
                f"{encoder.name!r} is {encoder.fingerprint}: use --encoder with the one that fits, or build the index "
                "again with this one into another --index"
            )
        return encoder

    def by_text(self, text: str, options: SearchOptions, *, target: Target = "auto") -> list[Hit]:
        """Rows nearest to a text: images, or captions with target="text".

        Raises:
            UsageError: an empty text, k < 1, or the index holds none of the target.
        """
        if not text.strip():
            raise UsageError('the query is empty: give some words, e.g. brivl-search query "a dog on grass"')
        self.refresh()
        modality = self._modality("image" if target == "auto" else target)
        return self._search(self.encoder.encode_texts([_printable(text)]), "text", modality, options)

    def cut_tokens(self, text: str) -> int:
        """How many tokens of a query the text tower does not see."""
        return self.encoder.cut_tokens([_printable(text)])[0]

    def by_image(self, path: str | os.PathLike[str], options: SearchOptions, *, target: Target = "auto") -> list[Hit]:
        """Rows nearest to a picture: captions where the index has texts ("auto"), else similar images.

        Raises:
            UsageError: the file is missing or not a picture, k < 1, or the index holds none of the target.
        """
        self.refresh()
        if target == "auto":
            target = "text" if self.reader.count("text") else "image"
        modality = self._modality(target)
        try:
            pixels = load_pixels(os.fspath(path), self.encoder.pixels)
        except ImageError as error:
            raise UsageError(f"--image {os.fspath(path)}: {error}") from None
        return self._search(self.encoder.encode_images(pixels[None]), "image", modality, options)

    def _modality(self, target: Modality) -> Modality:
        if not self.reader.count(target):
            if self.reader.damage:
                raise IndexIncompatibleError(self.reader.damage[0])
            what = {"image": "images", "text": "captions (captions.jsonl beside the images)"}[target]
            raise UsageError(f"the index at {self.reader.directory} holds no {what}")
        return target

    def _search(self, vectors: np.ndarray, query: Modality, modality: Modality, options: SearchOptions) -> list[Hit]:
        calibration = self.encoder.calibration if query != modality else None
        reader = self.reader
        while True:
            found = reader.search(
                modality, vectors, options.k, exact=options.exact, nprobe=options.nprobe, rerank=options.rerank
            )
            hits: list[Hit] = []
            for score, shard, row in zip(found.scores[0], found.shards[0], found.rows[0], strict=True):
                if row < 0:
                    return hits
                try:
                    record = reader.record(modality, int(shard), int(row))
                except IndexIncompatibleError as error:  # a disk that fails under an open index
                    reader.drop(modality, int(shard), str(error))
                    self._modality(modality)  # ends it if nothing is left
                    break
                path = as_given(str(record.get("path" if modality == "image" else "image", "")), reader.info.roots)
                match = calibration.probability(float(score)) if calibration else None
                hits.append(Hit(len(hits) + 1, float(score), modality, path, record.get("text"), record, match))
            else:
                return hits


def as_given(path: str, roots: Sequence[tuple[str, str]]) -> str:
    """`path` under the folder as it was typed, if that means the same place from the current folder."""
    for given, absolute in roots:
        inside = os.path.join(absolute, "")
        if path.startswith(inside) and os.path.abspath(given) == absolute:
            return os.path.join(given, path[len(inside) :])
    return path


def _printable(text: str) -> str:
    """Bytes of an argument that were not UTF-8 become replacement characters instead of an error in the tokenizer."""
    return text.encode("utf-8", "replace").decode("utf-8")
