"""An open index that follows what builds publish, and the encoder that fits it."""

from __future__ import annotations

import threading
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from brivl_search.embedding.reranker import Reranker
from brivl_search.encoders.base import Encoder
from brivl_search.encoders.registry import load_encoder
from brivl_search.encoders.runtimes.choice import Precision, Runtime
from brivl_search.errors import EncoderError, IndexIncompatibleError, IndexMissingError, UsageError
from brivl_search.index import IndexReader, Modality
from brivl_search.search.allowed import Masks, allowed
from brivl_search.search.filters import Filter
from brivl_search.search.sample import Sample, vectors_of
from brivl_search.search.unmatched import Reason, check_folders, explain
from brivl_search.steps import step

K = TypeVar("K")
V = TypeVar("V")

_FILTERS = 8  # of which is remembered what they let through


class LiveIndex:
    """An open index and the encoder that fits it. Towers load when first needed. Threads may share it.

    Args:
        directory: the index.
        encoder: name of an encoder; None: the one the index was built with.
        device: torch device for the towers.
        runtime, precision: what computes them, see `load_encoder`.
        stays: many queries will come: bring the index into memory in the background, see `IndexReader.warm`.

    Attributes:
        reader: the generation that answers now; another one after `refresh` or `leave_out`.

    Raises:
        IndexMissingError: no index there.
        IndexIncompatibleError: the index is damaged.
    """

    def __init__(
        self,
        directory: Path,
        *,
        encoder: str | None = None,
        device: str = "auto",
        runtime: Runtime = "auto",
        precision: Precision = "auto",
        stays: bool = False,
    ) -> None:
        self.reader = IndexReader.open(directory)
        self._stays = stays
        if stays:
            self.reader.warm()
        self._encoder_name, self._device = encoder, device
        self._runtime, self._precision = runtime, precision
        self._masks: dict[tuple[IndexReader, Modality, Filter], Masks] = {}
        self._reasons: dict[tuple[IndexReader, Modality, Filter], Reason | None] = {}
        self._samples: dict[tuple[IndexReader, Modality], NDArray[np.float32]] = {}
        self._rerankers: dict[str, Reranker] = {}
        self._loading = threading.Lock()  # of matchers
        self._lock = threading.Lock()  # of what is replaced while threads search: the reader, what is remembered

    def refresh(self) -> bool:
        """Switch to the generation published last, without a restart; says whether there was a newer one.

        Called before every search, and cheap: see `IndexReader.stale`. Searches under way keep the generation they
        began with. An index that is gone for the moment is answered from as it was.

        Raises:
            IndexIncompatibleError: it is damaged now, or of another encoder.
        """
        with self._lock:
            return self._refresh()

    def _refresh(self) -> bool:
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
        self._replace(fresh)
        if self._stays:
            fresh.warm()
        return True

    def leave_out(self, reader: IndexReader, modality: Modality, shard: int, why: str) -> None:
        """Search without a shard of a reader that turned out to be damaged; `why` becomes a line of its damage."""
        with self._lock:
            if self.reader is reader:  # else another thread has been here, or there is a new generation
                self._replace(reader.without(modality, shard, why))

    def _replace(self, reader: IndexReader) -> None:
        self.reader = reader
        self._masks.clear()
        self._samples.clear()
        self._reasons.clear()

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder that fits the index.

        Raises:
            IndexIncompatibleError: the one that was asked for does not fit, or the index's own cannot be loaded.
            EncoderError: the one that was asked for cannot be loaded.
        """
        built_with = self.reader.info.encoder
        where = self.reader.directory
        try:
            encoder = load_encoder(
                self._encoder_name or built_with.name,
                device=self._device,
                runtime=self._runtime,
                precision=self._precision,
            )
        except (EncoderError, UsageError) as error:
            if self._encoder_name:
                raise
            raise IndexIncompatibleError(
                f"the index at {where} needs its encoder {built_with.name!r}, which cannot be loaded ({error}): "
                "give its new place with `encoder`"
            ) from None
        if encoder.fingerprint != built_with.fingerprint:
            own = encoder.name.startswith(f"{built_with.name}+precision=")
            advice = f"leave out `precision` {self._precision}" if own else "give the one that fits with `encoder`"
            raise IndexIncompatibleError(
                f"the index at {where} is of encoder {built_with.name!r} (fingerprint {built_with.fingerprint}), and "
                f"{encoder.name!r} is {encoder.fingerprint}: {advice}, or build another index with this one"
            )
        return encoder

    def reranker(self, name: str) -> Reranker:
        """The matcher of this name, loaded once.

        Raises:
            EncoderError: it cannot be loaded, or does not fit the index's encoder.
            UsageError: there is none.
        """
        encoder = self.encoder
        with self._loading:
            if name not in self._rerankers:
                from brivl_search.encoders.matching import load_matcher

                self._rerankers[name] = Reranker(load_matcher(name, encoder, device=self._device))
            return self._rerankers[name]

    @step("search")
    def allowed(self, reader: IndexReader, modality: Modality, wanted: Filter) -> Masks | None:
        """The rows of a reader that a filter lets through, None for all; the last few filters are remembered.

        Raises:
            UsageError: no record has a field that the filter names, or nothing lies in a folder that it names.
        """
        if not wanted:
            return None
        key = (reader, modality, wanted)
        masks = self._masks.get(key)
        if masks is None:
            masks = allowed(reader, modality, wanted)
            if not any(mask.any() for mask in masks):
                check_folders(reader, modality, wanted)
            self._remember(self._masks, key, masks)
        return masks

    @step("records")
    def sample(self, reader: IndexReader, modality: Modality, allow: Masks | None) -> Sample:
        """What hits are compared with: rows of the collection, taken once, and how many a filter lets through."""
        key = (reader, modality)
        vectors = self._samples.get(key)
        if vectors is None:
            vectors = vectors_of(reader, modality)
            self._remember(self._samples, key, vectors)
        if allow is None:
            return Sample(vectors, reader.count(modality))
        live = reader.live(modality)
        return Sample(vectors, sum(int(np.count_nonzero(mask & one)) for mask, one in zip(allow, live, strict=True)))

    def knows(self, modality: Modality, wanted: Filter) -> bool:
        """Whether `allowed` would answer at once for the reader that answers now."""
        return not wanted or (self.reader, modality, wanted) in self._masks

    def nothing_fits(self, modality: Modality, wanted: Filter) -> Reason | None:
        """Why a filter lets nothing through; None if it lets something through, or is none.

        Raises:
            UsageError: as of `allowed`.
        """
        reader = self.reader
        masks = self.allowed(reader, modality, wanted)
        if masks is None or any(mask.any() for mask in masks):
            return None
        key = (reader, modality, wanted)
        if key not in self._reasons:
            self._remember(self._reasons, key, explain(reader, modality, wanted))
        return self._reasons.get(key)

    def _remember(self, known: dict[K, V], key: K, value: V) -> None:
        with self._lock:
            while len(known) >= _FILTERS:
                known.pop(next(iter(known)))
            known[key] = value
