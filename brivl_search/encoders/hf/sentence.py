"""The encoder over any model of sentence-transformers: its CLIP models, and newer ones for texts and pictures.

A folder with modules.json is such a model. Its own processor prepares the pictures, which it gets as squares, because
the decoding processes produce squares. Their size and crop are those of its image processor. Models that take any size
get 448 × 448 pixels, squashed.
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.images import PixelSpec
from brivl_search.corpus.spelling import Spelling
from brivl_search.encoders.base import Origin, Precision
from brivl_search.encoders.hf.family import matryoshka, pixel_spec, read_facts, read_preprocessing
from brivl_search.encoders.hf.files import FoundModel, digest, read_json
from brivl_search.encoders.hf.prompts import read_prompts
from brivl_search.encoders.hf.words import spelling, unknown
from brivl_search.encoders.known import known_matryoshka
from brivl_search.encoders.on_torch import TorchEncoder
from brivl_search.encoders.settings import no_patches, no_walks
from brivl_search.encoders.truncate import check_dim, cut
from brivl_search.errors import DependencyError, EncoderError, install_hint

ANY_SIZE = PixelSpec(448, "squash", "bicubic")
_ONE_PICTURE = {"embedding_gemma2"}  # kinds whose processor takes the pictures of a batch for parts of one document
_UNKNOWN = re.compile("does not recognize this architecture|Unrecognized model in")
_NOT_HASHED = {".md", ".png", ".jpg", ".jpeg", ".svg", ".gif", ".onnx", ".py"}


class SentenceEncoder(TorchEncoder):
    """Images and texts → unit vectors by sentence-transformers (see `brivl_search.encoders.base.LoadedEncoder`).

    Code that comes with a model runs only if BRIVL_SEARCH_TRUST_REMOTE_CODE=1 is set. Queries and captions get the
    prompts that `brivl_search.encoders.hf.prompts` tells.
    """

    def __init__(
        self, found: FoundModel, *, device: str = "auto", precision: Precision = "auto", batch_size: int = 32
    ) -> None:
        """Reads the config files and hashes the weights. Loads the model only to learn the length of its vectors.

        Raises:
            EncoderError: a file is missing or damaged, or the vectors cannot be cut.
            DependencyError: sentence-transformers is not installed.
            UsageError: its name asks for a prompt that it does not have, a walk, or a number of patches.
        """
        no_walks(found.name, found.settings)
        no_patches(found.name, found.settings)
        self.folder, self._first = found.folder, _first_module(found.folder)
        self._kind = _kind(self._first)
        self.prompts = read_prompts(found.name, found.folder, self._kind, found.settings)
        super().__init__(found.name, _pixels(self._first), device=device, precision=precision, batch_size=batch_size)
        self._full_dim = self._dim()
        sizes = matryoshka(found.folder) or known_matryoshka(found.name)
        self.dim = check_dim(found.name, self._full_dim, found.settings.dim, sizes)
        settings: dict[str, Any] = {"dim": self.dim, "pixels": self.pixels.to_dict()}
        if self.prompts.changed:  # otherwise an index that was made before there were sides stays good
            settings["prompts"] = {"query": self.prompts.query, "document": self.prompts.document}
        self.fingerprint = "st-" + digest(_hashed(found.folder), settings)[:24]

    @property
    def has_sides(self) -> bool:
        return self.prompts.query != self.prompts.document or self._routes

    def _dim(self) -> int:
        modules = json.loads((self.folder / "modules.json").read_text(encoding="utf-8"))
        self._routes = any(str(module.get("type", "")).endswith("Router") for module in modules)
        if len([module for module in modules if not str(module.get("type", "")).endswith("Normalize")]) == 1:
            try:
                return read_facts(self._first).dim
            except EncoderError:
                pass
        # A vector tells. `get_embedding_dimension` is the width of the states, which EmbeddingGemma 2 projects.
        return int(self.model.encode(["a"], show_progress_bar=False).shape[1])

    @cached_property
    def model(self) -> Any:
        """The SentenceTransformer.

        Raises:
            DependencyError: sentence-transformers is not installed.
            EncoderError: it cannot load the model.
        """
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise DependencyError(f"{self.name} needs sentence-transformers: {install_hint('sentence')}") from None
        from brivl_search.encoders.hf.towers import quiet

        trust = os.environ.get("BRIVL_SEARCH_TRUST_REMOTE_CODE") == "1"
        try:
            with quiet():
                return SentenceTransformer(
                    str(self.folder), device=str(self.device), trust_remote_code=trust, local_files_only=True
                )
        except Exception as error:  # it raises what its parts raise
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            if "trust_remote_code" in reason:
                raise EncoderError(
                    f"{self.name} brings its own program code: read it in {self.folder}, and if you trust it, set "
                    "BRIVL_SEARCH_TRUST_REMOTE_CODE=1"
                ) from None
            if _UNKNOWN.search(reason):
                from transformers import __version__

                raise EncoderError(
                    f"{self.name}: this transformers ({__version__}) has no model of type {self._kind!r}: "
                    "upgrade transformers and sentence-transformers"
                ) from None
            raise EncoderError(f"{self.name} cannot be loaded by sentence-transformers: {reason}") from None

    def _torch_pixels(self, pixels: NDArray[np.uint8], origins: Sequence[Origin] | None) -> NDArray[np.float32]:
        if not self.model.supports("image"):
            raise EncoderError(
                f"{self.name} embeds {', '.join(map(str, self.model.modalities))}, and no images: take an encoder of "
                "both (`brivl-search models list`), or embed texts alone"
            )
        from PIL import Image

        batch = 1 if self._kind in _ONE_PICTURE else self.batch_size
        return self._encode([{"image": Image.fromarray(square)} for square in pixels], "document", batch)

    def _torch_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        # As dictionaries: a bare text that is the address of a picture would be fetched and embedded as one.
        return self._encode([{"text": text} for text in self.spelled(texts)], "document")

    def _encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._encode([{"text": text} for text in self.spelled(texts)], "query")

    def _encode(
        self, items: Sequence[dict[str, Any]], side: Literal["query", "document"], batch: int | None = None
    ) -> NDArray[np.float32]:
        import torch

        if not items:
            return np.empty((0, self.dim), dtype=np.float32)
        encode = self.model.encode_query if side == "query" else self.model.encode_document
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
            found = encode(
                list(items),
                prompt=self.prompts.query if side == "query" else self.prompts.document,
                batch_size=batch or self.batch_size,
                show_progress_bar=False,
                convert_to_tensor=True,
            )
        return cut(found.float().cpu().numpy(), self.dim)

    def _cut_tokens(self, texts: Sequence[str]) -> list[int]:
        limit, tokenizer = self.model.max_seq_length, self.model.tokenizer
        if not texts or limit is None or tokenizer is None:
            return [0] * len(texts)
        read = [self.prompts.document + text for text in self.spelled(texts)]
        whole = getattr(tokenizer, "tokenizer", tokenizer)(read, truncation=False, verbose=False)
        return [max(len(ids) - int(limit), 0) for ids in whole["input_ids"]]

    @cached_property
    def _words(self) -> Any:
        """A tokenizer of texts, None if the model has none of transformers' kind.

        A copy: a tokenizer changes its settings with every call, and the model may be at work in another thread.
        """
        found = self.model.tokenizer
        return copy.deepcopy(getattr(found, "tokenizer", found))

    @cached_property
    def _spelling(self) -> Spelling:
        return Spelling() if self._words is None else spelling(self._words)

    def spelled(self, texts: Sequence[str]) -> list[str]:
        return [self._spelling(text) for text in texts]

    def _unknown_words(self, texts: Sequence[str]) -> list[list[str]]:
        return [[] for _ in texts] if self._words is None else unknown(self._words, self.spelled(texts))


def _first_module(folder: Path) -> Path:
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        return folder / str(modules[0]["path"])
    except (OSError, ValueError, LookupError, TypeError):
        raise EncoderError(f"{folder / 'modules.json'} does not name the parts of a model") from None


def _kind(folder: Path) -> Any:
    """`model_type` of the first module's config; None if it has none."""
    try:
        return read_json(folder / "config.json").get("model_type")
    except EncoderError:
        return None


def _pixels(folder: Path) -> PixelSpec:
    """The resizing of the model's image processor if it makes squares of one size, else `ANY_SIZE`."""
    try:
        return read_facts(folder).pixels
    except EncoderError:
        pass
    try:
        return pixel_spec(read_preprocessing(folder))
    except (EncoderError, LookupError, TypeError, ValueError, AttributeError):
        return ANY_SIZE


def _hashed(folder: Path) -> list[Path]:
    """All files of the model except pictures, texts about it, and program code."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() not in _NOT_HASHED)
    return [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
