"""Training pairs from shards: shuffled, split over processes and workers, and resumable at the exact next pair.

The order of an epoch is a function of (seed, epoch): the shards are permuted, consecutive ones are joined until they
hold `buffer` pairs, and the pairs of such a window are permuted. A reader with a shuffle buffer of that size would give
such an order, but here any place in it can be computed. So a resumed run reads nothing twice. The order depends neither
on the number of processes nor on that of workers. A process reads its slice of every batch, and of a shard only
those pairs; its workers take turns step by step. In memory are one window's numbers (8 bytes a pair) and the places of
the open shards (40 bytes a pair).
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from brivl_search.corpus.images import PixelSpec, load_pixels
from brivl_search.errors import CorpusError
from train.data.photos import Augment, draw_captions, drop_tokens
from train.data.words import Words
from train.pairs.shards import Shard, ShardReader, identity, list_shards
from train.recipe import Shards

_TRIES = 20


class Plan:
    """Which pair stands at which place of an epoch."""

    def __init__(self, sizes: Sequence[int], *, seed: int, buffer: int) -> None:
        """`sizes`: pairs of every entry, a shard or one of its repetitions; `buffer`: pairs shuffled together."""
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.first = np.concatenate([[0], np.cumsum(self.sizes)])  # number of an entry's first pair
        self.pairs = int(self.first[-1])
        self.seed, self.buffer = seed, buffer
        self._epoch = -1
        self._window = (-1, np.empty(0, dtype=np.int64))

    def _lay_out(self, epoch: int) -> None:
        self.order = np.random.default_rng((self.seed, 3, epoch)).permutation(len(self.sizes))
        starts, held = [0], 0
        for place, entry in enumerate(self.order):
            if held >= self.buffer:
                starts.append(place)
                held = 0
            held += int(self.sizes[entry])
        self.windows = [*starts, len(self.order)]
        ends = np.cumsum(self.sizes[self.order])
        self.places = np.concatenate([[0], ends[np.array(self.windows[1:]) - 1]])  # first place of every window
        self._epoch, self._window = epoch, (-1, self._window[1])

    def at(self, epoch: int, first: int, last: int) -> np.ndarray:
        """Numbers of the pairs at places first … last−1 of an epoch, int64; a number counts through all entries."""
        if not 0 <= first <= last <= self.pairs:
            raise ValueError(f"places {first} to {last} of an epoch of {self.pairs} pairs")
        if epoch != self._epoch:
            self._lay_out(epoch)
        parts = []
        while first < last:
            window = int(np.searchsorted(self.places, first, "right")) - 1
            start, end = int(self.places[window]), min(int(self.places[window + 1]), last)
            parts.append(self._numbers(window)[first - start : end - start])
            first = end
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def _numbers(self, window: int) -> np.ndarray:
        if self._window[0] != window:
            entries = self.order[self.windows[window] : self.windows[window + 1]]
            numbers = np.concatenate([np.arange(self.first[e], self.first[e + 1]) for e in entries])
            rng = np.random.default_rng((self.seed, 4, self._epoch, window))
            self._window = (window, rng.permutation(numbers))
        return self._window[1]

    def entry(self, number: int) -> tuple[int, int]:
        """The entry of a pair and its row there."""
        entry = int(np.searchsorted(self.first, number, "right")) - 1
        return entry, number - int(self.first[entry])


@dataclass(frozen=True)
class Source:
    """One `[[shards]]` table of a recipe: its shards, its caption fields with their weights, draws per epoch."""

    shards: list[Shard]
    captions: dict[str, float]
    repeat: int = 1


def read_sources(specs: Sequence[Shards], base: Path, index_folder: Path) -> list[Source]:
    """All `[[shards]]` tables of a recipe.

    Keys: `folder`, `captions` = {field = weight}, `repeat` = draws of each pair per epoch.
    """
    sources = []
    for spec in specs:
        try:
            shards = list_shards((base / spec.folder).resolve(), index_folder)
        except CorpusError as error:
            raise SystemExit(f"[[shards]] {error}") from None
        sources.append(Source(shards, spec.captions, spec.repeat))
    return sources


class ShardSteps(Dataset[dict[str, Tensor]]):
    """Item s is this process' slice of the batch of step s, as `StepDataset`'s.

    What is drawn for a pair (caption, crop, flip) depends on the seed, the step and its place in the whole batch. A
    pair whose image or text cannot be used is replaced by the next of its shard.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        tokenizer: Words,
        *,
        batch: int,
        captions: int,
        seed: int,
        pixels: PixelSpec,
        augment: Augment,
        buffer: int = 65_536,
        plain_view: float = 0.2,
        token_dropout: float = 0.0,
        flip: float = 0.5,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.tokenizer, self.batch, self.captions, self.seed = tokenizer, batch, captions, seed
        self.pixels, self.augment = pixels, augment
        self.plain_view, self.token_dropout, self.flip = plain_view, token_dropout, flip
        self.mine = range(rank * batch // processes, (rank + 1) * batch // processes)
        distinct = [(shard, source) for source in sources for shard in source.shards]
        entries = [(i, shard, source) for i, (shard, source) in enumerate(distinct) for _ in range(source.repeat)]
        base = np.concatenate([[0], np.cumsum([shard.pairs for shard, _ in distinct])])
        self.entries = [(shard, source.captions, int(base[i])) for i, shard, source in entries]
        self.plan = Plan([shard.pairs for _, shard, _ in entries], seed=seed, buffer=buffer)
        self.per_epoch = self.plan.pairs // batch
        if not self.per_epoch:
            raise SystemExit(f"a batch of {batch} needs as many pairs; the shards give {self.plan.pairs} per epoch")
        what = [identity([shard for _, shard, _ in entries]), seed, buffer]
        self.identity = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
        self.origin = (0, 0, 0)  # a step, and the epoch and the place there where it begins
        self.reader = ShardReader()
        self._warned: set[str] = set()

    def place(self, step: int) -> tuple[int, int]:
        """Epoch, and place there of the first pair of a step's batch; what is less than a batch ends an epoch."""
        since, epoch, first = self.origin
        ahead = step - since
        rest = (self.plan.pairs - first) // self.batch
        if ahead < rest:
            return epoch, first + ahead * self.batch
        more, place = divmod(ahead - rest, self.per_epoch)
        return epoch + 1 + more, place * self.batch

    def state(self, step: int) -> dict[str, Any]:
        """For a checkpoint: the next pair's place, and a hash of what the order depends on."""
        epoch, first = self.place(step)
        return {"identity": self.identity, "epoch": epoch, "first": first}

    def go_on(self, step: int, state: dict[str, Any]) -> None:
        """Makes `step` begin where `state` says, also if the batch has another size now.

        Raises:
            SystemExit: the state is of other shards, another seed or another buffer.
        """
        if not state:
            return
        if state["identity"] != self.identity:
            raise SystemExit(
                "the [[shards]], train.seed or train.shuffle_buffer are not those this run began with: set them back, "
                'or begin a run from its weights (--set run="…" --set init.checkpoint=".../checkpoint")'
            )
        self.origin = (step, int(state["epoch"]), int(state["first"]))

    def numbers(self, step: int) -> np.ndarray:
        """Numbers of this process' pairs of a step, in order."""
        epoch, first = self.place(step)
        return self.plan.at(epoch, first + self.mine.start, first + self.mine.stop)

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        texts: list[str] = []
        drops: list[np.random.Generator] = []
        images, ids = [], []
        for place, number in zip(self.mine, self.numbers(step), strict=True):
            rng = np.random.default_rng((self.seed, 2, step, place))
            captions, pixels, image_id = self._pair(int(number), rng)
            texts += captions
            drops += [rng] * len(captions)
            images.append(pixels[:, ::-1] if rng.random() < self.flip else pixels)
            ids.append(image_id)
        rows = self.tokenizer.ids(texts)
        if self.token_dropout:
            rows = [drop_tokens(self.tokenizer, row, self.token_dropout, r) for row, r in zip(rows, drops, strict=True)]
        padded, mask = self.tokenizer.batch(rows)
        return {
            "images": torch.from_numpy(np.stack(images)),
            "token_ids": torch.from_numpy(padded),
            "token_mask": torch.from_numpy(mask),
            "ids": torch.tensor(ids, dtype=torch.long),
        }

    def _pair(self, number: int, rng: np.random.Generator) -> tuple[list[str], np.ndarray, int]:
        """Captions, pixels uint8 (S, S, 3) and image id of a pair, or of the next one that can be used."""
        entry, row = self.plan.entry(number)
        shard, weights, base = self.entries[entry]
        reason = ""
        for attempt in range(min(_TRIES, shard.pairs)):
            at = (row + attempt) % shard.pairs
            pair = self.reader.read(shard, at)
            captions = _captions(pair.record, weights)
            if captions:
                chosen = list(draw_captions(captions, weights, self.captions, rng))
                try:
                    return chosen, self._pixels(pair.image, rng), base + at
                except Exception as error:  # Pillow raises many kinds for a damaged file
                    reason = f"its image cannot be read ({error})"
            else:
                reason = f"it has no caption in {', '.join(weights)}"
            if shard.path not in self._warned:
                self._warned.add(shard.path)
                warnings.warn(f"{shard.path}, pair {at}: {reason}; the next one is taken instead", stacklevel=2)
        raise SystemExit(f"{shard.path}: {_TRIES} pairs from {row} on cannot be used; of the last, {reason}")

    def _pixels(self, image: bytes, rng: np.random.Generator) -> np.ndarray:
        plain, seed = rng.random() < self.plain_view, int(rng.integers(2**31))
        return load_pixels(image, self.pixels) if plain else self.augment(image, seed)


def _captions(record: dict[str, Any], weights: dict[str, float]) -> dict[str, list[str]]:
    captions = {}
    for name in weights:
        texts = record.get(name)
        texts = [texts] if isinstance(texts, str) else texts if isinstance(texts, list) else []
        if texts := [text for text in texts if isinstance(text, str) and text.strip()]:
            captions[name] = texts
    return captions
