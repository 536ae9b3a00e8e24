"""The encoder over a folder of immich's format. Each tower is opened when it is first used."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.encoders.base import Origin, Precision
from brivl_search.encoders.hf.files import FoundModel
from brivl_search.encoders.immich.files import read_description
from brivl_search.encoders.immich.layout import TEXTUAL, VISUAL
from brivl_search.encoders.immich.tokens import Tokens
from brivl_search.encoders.known import known_matryoshka
from brivl_search.encoders.runtimes import store
from brivl_search.encoders.runtimes.choice import Choice
from brivl_search.encoders.runtimes.made import least_cosine, texts
from brivl_search.encoders.runtimes.session import open_session, optimized
from brivl_search.encoders.settings import only_dim
from brivl_search.encoders.truncate import check_dim, cut
from brivl_search.encoders.two_towers import TwoTowers
from brivl_search.errors import DependencyError, EncoderError, UsageError, install_hint

_CHECKED = 12  # texts that the copy is compared on
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


class ImmichEncoder(TwoTowers):
    """Images and texts → unit vectors by ONNX Runtime (see `brivl_search.encoders.base.LoadedEncoder`)."""

    def __init__(
        self, found: FoundModel, *, device: str = "auto", precision: Precision = "auto", batch_size: int = 32
    ) -> None:
        """Reads the config files and hashes the weights.

        Args:
            found: the model.
            device: "cpu" or "auto".
            precision: "fp32" or "auto": that of the file.
            batch_size: images or texts per run, where the file does not fix it.

        Raises:
            DependencyError: ONNX Runtime is not installed.
            EncoderError: the folder is not whole, is damaged or not supported, or its vectors cannot be cut.
            UsageError: another device or precision was asked for, or prompts.
        """
        if find_spec("onnxruntime") is None:
            raise DependencyError(f"{found.name} needs ONNX Runtime: {install_hint('onnx')}")
        for what, given, known in (("device", device, "cpu"), ("precision", precision, "fp32")):
            if given not in ("auto", known):
                raise UsageError(f"{found.name} has ONNX files, for which `{what}` is {known} or auto, not {given}")
        only_dim(found.name, found.settings)
        self.about = read_description(found.folder)
        super().__init__(found.name, self.about.pixels, batch_size=batch_size)
        self.dim = check_dim(found.name, self.about.dim, found.settings.dim, known_matryoshka(found.name))
        self.fingerprint = self.about.fingerprint(self.dim)

    @cached_property
    def image_tower(self) -> Tower:
        """pixels → vectors.

        Raises:
            EncoderError: the file is damaged, or does not fit the descriptions beside it.
        """
        side = self.about.pixels.size
        return Tower(self.about.folder / VISUAL, (3, side, side), self.about.dim)

    @cached_property
    def text_tower(self) -> Tower:
        """Token ids → vectors; raises as `image_tower`.

        A copy in the cache of exports opens in a twentieth of the time: ONNX Runtime need not rearrange it.
        """
        folder = store.place(self.fingerprint, "text", Choice("onnx", "fp32"))
        facts = store.read(folder)
        if facts is None:
            return self._copied(folder)
        if facts.same:
            try:
                return self._text_tower(folder / store.MODELS["onnx"], at_once=True)
            except EncoderError:  # damaged in spite of its length
                store.drop(folder)
        return self._text_tower(self.about.folder / TEXTUAL)

    def _copied(self, folder: Path) -> Tower:
        """The text tower as it lies on disk. The copy for later is made beside it, unless the cache cannot take it."""
        own = self._text_tower(self.about.folder / TEXTUAL)
        ids, mask = self.tokens(texts(_CHECKED))
        inputs = {"": ids, "attention_mask": mask}
        with contextlib.suppress(OSError, EncoderError), store.filling(folder) as temporary:
            path = temporary / store.MODELS["onnx"]
            optimized(self.about.folder / TEXTUAL, path)
            cosine = least_cosine(self._text_tower(path, at_once=True)(inputs), own(inputs))
            store.Facts(cosine, list(own.inputs), made_by=store.versions()).write(temporary)
        return own

    def _text_tower(self, path: Path, *, at_once: bool = False) -> Tower:
        return Tower(path, (self.about.context,), self.about.dim, at_once=at_once)

    @cached_property
    def tokens(self) -> Tokens:
        """The tokenizer.

        Raises:
            EncoderError: its file is damaged.
        """
        return Tokens(self.about)

    def _encode_pixels(self, pixels: NDArray[np.uint8], origins: Sequence[Origin] | None) -> NDArray[np.float32]:
        mean, std = (np.asarray(one, dtype=np.float32) for one in (self.about.mean, self.about.std))
        out = np.empty((len(pixels), self.about.dim), dtype=np.float32)
        for start in range(0, len(pixels), self.batch_size):
            normal = (pixels[start : start + self.batch_size].astype(np.float32) - mean) / std
            out[start : start + self.batch_size] = self.image_tower({"": normal.transpose(0, 3, 1, 2)})
        return cut(out, self.dim)

    def _encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        spelled = self.spelled(texts)
        out = np.empty((len(spelled), self.about.dim), dtype=np.float32)
        for start in range(0, len(spelled), self.batch_size):
            ids, mask = self.tokens(spelled[start : start + self.batch_size])
            out[start : start + self.batch_size] = self.text_tower({"": ids, "attention_mask": mask})
        return cut(out, self.dim)

    def spelled(self, texts: Sequence[str]) -> list[str]:
        return [self.tokens.spelling(text) for text in texts]

    def _cut_tokens(self, texts: Sequence[str]) -> list[int]:
        return [max(length - self.about.context, 0) for length in self.tokens.lengths(self.spelled(texts))]

    def _unknown_words(self, texts: Sequence[str]) -> list[list[str]]:
        return self.tokens.unknown(self.spelled(texts))


class Tower:
    """One ONNX file. Threads may share it."""

    def __init__(self, path: Path, shape: tuple[int, ...], dim: int, *, at_once: bool = False) -> None:
        """Opens it.

        Args:
            path: of the file.
            shape: of one picture or text.
            dim: length of a vector.
            at_once: as of `runtimes.session.open_session`.

        Raises:
            EncoderError: it is damaged, or it takes or gives something else.
        """
        self._session = open_session(path, at_once=at_once)
        self._dim, self._path = dim, path
        self._inputs = {one.name: _TYPES.get(one.type) for one in self._session.get_inputs()}
        strange = [f"{one.name} ({one.type})" for one in self._session.get_inputs() if one.type not in _TYPES]
        others = [name for name in self._inputs if name != "attention_mask"]
        if strange or len(others) != 1:
            raise EncoderError(f"{path} is not supported: it takes {', '.join(strange or self._inputs)}")
        self.inputs = tuple(self._inputs)
        batch, *given = next(one.shape for one in self._session.get_inputs() if one.name == others[0])
        if any(isinstance(has, int) and has != wanted for has, wanted in zip(given, shape, strict=False)):
            raise EncoderError(
                f"{path} takes {' x '.join(map(str, given))}, and the settings beside it say "
                f"{' x '.join(map(str, shape))}: one of them is of another model"
            )
        self._batch = batch if isinstance(batch, int) else None  # immich's own exports take one at a time

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Inputs by name, "" the main one, (n, ...) → float32 (n, dim).

        Raises:
            EncoderError: the file computes something else.
        """
        given = {name: inputs.get(name, inputs[""]).astype(kind, copy=False) for name, kind in self._inputs.items()}
        rows = len(inputs[""])
        step = self._batch or max(rows, 1)
        found = [self._run({key: value[at : at + step] for key, value in given.items()}) for at in range(0, rows, step)]
        return np.concatenate(found)

    def _run(self, given: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        rows = len(next(iter(given.values())))
        if self._batch and rows < self._batch:
            given = {key: np.resize(value, (self._batch, *value.shape[1:])) for key, value in given.items()}
        try:
            found = np.asarray(self._session.run(None, given)[0], dtype=np.float32)
        except Exception as error:  # its classes have no root of their own
            reason = " ".join(str(error).split())[:200]
            raise EncoderError(f"{self._path} cannot be computed: {reason}") from None
        if found.ndim != 2 or found.shape[1] != self._dim:
            raise EncoderError(
                f"{self._path} gives vectors of {found.shape[-1] if found.ndim else 1} numbers, and config.json says "
                f"{self._dim}: one of them is of another model"
            )
        return found[:rows]
