"""What an encoder has of exported towers: made when they pay, opened when they are used, and torch where they fail."""

from __future__ import annotations

import hashlib
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.encoders.runtimes import measured, store
from brivl_search.encoders.runtimes import order as orders
from brivl_search.encoders.runtimes.choice import TORCH, Choice, Precision, Runtime, Side, choose
from brivl_search.encoders.runtimes.openvino import Run
from brivl_search.encoders.runtimes.session import default_threads
from brivl_search.encoders.runtimes.tokens import FILE, FastTokens, Reading, read_file
from brivl_search.errors import EncoderError, TowerWarning

WORTH = 1000  # pictures that wait, from which on `auto` makes an export: it takes about as long as 500 of them
CHUNK = 8  # pictures of a run: several small runs side by side are faster than one large one (benchmarks/README.md)


@dataclass(frozen=True)
class Tower:
    """An open export.

    Attributes:
        folder: where its files are.
        facts: what is known of it.
        run: inputs by name → vectors float32 (n, dim); threads may share it.
        streams: how many runs go side by side.
    """

    folder: Path
    facts: store.Facts
    run: Run
    streams: int = 1

    def images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 (n, S, S, 3) → float32 (n, dim), not of unit length."""
        parts = [np.ascontiguousarray(pixels[at : at + CHUNK]) for at in range(0, len(pixels), CHUNK)]
        together = map if len(parts) == 1 else self._pool.map
        return np.concatenate(list(together(lambda part: self.run({"pixels": part}), parts)))

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.streams, thread_name_prefix="tower")

    def texts(self, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Token ids and what belongs to them → float32 (n, dim), not of unit length."""
        return self.run({name: inputs[name] for name in self.facts.inputs})

    @cached_property
    def tokens(self) -> FastTokens | None:
        """The tokenizer that came with it; None: the encoder has to ask its own library."""
        if self.facts.texts is None:
            return None
        return FastTokens(read_file(self.folder / FILE), Reading(**self.facts.texts))


class Exports:
    """The exported towers of one encoder. Threads may share it.

    Args:
        name: of the encoder, by which another process loads it.
        fingerprint: of its vectors in float32.
        runtime, precision, device: as they were asked for.
        texts: whether `auto` may take an export for texts; False for an encoder that has its own way without torch.
    """

    def __init__(
        self, name: str, fingerprint: str, runtime: Runtime, precision: Precision, device: str, *, texts: bool = True
    ) -> None:
        self.name, self.fingerprint = name, fingerprint
        self.runtime, self.precision, self._device, self._texts = runtime, precision, device, texts
        self.expected = 0  # pictures that will be embedded
        self.bound: Precision | None = None  # vectors of this precision are asked for, and no others will do
        self._towers: dict[Side, Tower | None] = {}
        self._lock = threading.RLock()

    def choice(self, side: Side) -> Choice:
        """What is to compute a side."""
        if side == "text" and self.runtime == "auto" and not self._texts:
            return TORCH
        return choose(side, self.runtime, self.precision, self._device, measured.best(self.fingerprint, self.precision))

    def tower(self, side: Side) -> Tower | None:
        """The open export of a side; None: torch computes it.

        Raises:
            EncoderError: there is none, and the vectors must be of the precision that `bound` names.
        """
        with self._lock:
            if side not in self._towers:
                choice = self.choice(side)
                tower = None if choice.runtime == "torch" else self._opened(side, choice)
                if tower is None and side == "text" and choice.precision == "int8":
                    tower = self._opened(side, replace(choice, precision="fp32"))
                if tower is None and choice.runtime != "torch" and self.expected < WORTH and not self._explicit(side):
                    return None  # perhaps more pictures are coming
                self._towers[side] = tower
            return self._towers[side]

    def expect(self, images: int) -> None:
        """Says how many pictures will be embedded. For many, `auto` exports both sides."""
        with self._lock:
            self.expected = max(self.expected, images)
            if images >= WORTH:
                self.tower("image")
                self.tower("text")

    def variant(self) -> str | None:
        """The fingerprint of vectors that an export changes by more than rounding; None: it does not."""
        tower = self.tower("image") if self.precision in ("int8", "bf16") and self._explicit("image") else None
        return None if tower is None or tower.facts.same else variant(self.fingerprint, self.precision)

    def _explicit(self, side: Side) -> bool:
        return self.runtime in ("onnx", "openvino") or (side == "image" and self.precision == "int8")

    def _opened(self, side: Side, choice: Choice) -> Tower | None:
        folder = store.place(self.fingerprint, side, choice)
        bound = self.bound is not None and side == "image"
        small_texts = side == "text" and choice.precision == "int8"  # there is float32 behind it
        if small_texts and store.refusal(folder):
            return None
        try:
            facts = store.read(folder)
            if facts is None:
                if not bound and not self._explicit(side) and self.expected < WORTH:
                    return None
                facts = self._made(side, choice)
            if not facts.same and not self._may_differ(side):
                reason = f"{choice} would change its {side} vectors (cosine {facts.cosine:.4f})"
                if small_texts:
                    store.drop(folder)
                    store.refuse(folder, reason)
                raise EncoderError(f"{self.name}: {reason}")
            try:
                return Tower(folder, facts, open_run(folder, choice, side), streams(side))
            except EncoderError:  # damaged in spite of its length
                store.drop(folder)
                return Tower(folder, self._made(side, choice), open_run(folder, choice, side), streams(side))
        except EncoderError as error:
            if bound:
                raise
            tell(f"{error}; {'float32' if small_texts else 'torch'} computes it")
            return None

    def _may_differ(self, side: Side) -> bool:
        return side == "image" and self._explicit(side) and self.precision in ("int8", "bf16")

    def _made(self, side: Side, choice: Choice) -> store.Facts:
        order = orders.Order(self.name, self.fingerprint, side, choice.runtime, choice.precision)
        refused = store.refusal(order.place)
        if refused and not self._explicit(side):
            raise EncoderError(refused)
        tell(f"the {side} tower of {self.name} is exported for {choice}; this happens once")
        try:
            return orders.in_own_process(order)
        except orders.UnexportableError as error:  # a full disk or a killed process may be better next time
            store.refuse(order.place, str(error))
            raise


def open_run(folder: Path, choice: Choice, side: Side) -> Run:
    """Opens the model in an export's folder.

    Raises:
        DependencyError: the runtime is not installed.
        EncoderError: its file is damaged.
    """
    path = folder / store.MODELS[choice.runtime]
    if choice.runtime == "openvino":
        from brivl_search.encoders.runtimes.openvino import open_model

        return open_model(path, bf16=choice.precision == "bf16", streams=streams(side))
    from brivl_search.encoders.runtimes.session import open_session

    session = open_session(path, at_once=side == "text", threads=max(1, default_threads() // streams(side)))
    return lambda inputs: np.asarray(session.run(None, dict(inputs))[0], dtype=np.float32)


def streams(side: Side) -> int:
    """Runs of a tower that go side by side: one for texts; for pictures one a thread, with many threads one for two."""
    threads = default_threads()
    return 1 if side == "text" else threads if threads <= 4 else threads // 2


def variant(fingerprint: str, precision: str) -> str:
    """The fingerprint of an encoder's vectors in a precision that changes them."""
    from brivl_search.encoders.runtimes.quantize import RECIPE

    whole = f"{fingerprint}\0{precision}\0{RECIPE if precision == 'int8' else ''}"
    return f"{fingerprint.partition('-')[0]}-{precision}-" + hashlib.sha256(whole.encode()).hexdigest()[:24]


def tell(line: str) -> None:
    """A line for whoever waits."""
    warnings.warn(TowerWarning(line), stacklevel=2)
