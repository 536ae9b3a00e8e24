"""Models of transformers that take a picture whole, by a processor of their own: matchers and captioners."""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Any, ClassVar

from brivl_search.encoders.base import Precision
from brivl_search.encoders.hf.family import read_preprocessing
from brivl_search.encoders.hf.files import digest, find_model, read_json, tokenizer_files, weight_files
from brivl_search.encoders.hf.shown import Seen
from brivl_search.encoders.on_device import OnDevice
from brivl_search.errors import EncoderError


class WholeModel(OnDevice):
    """Such a model, found and hashed, and not loaded.

    Attributes:
        WHAT: the model in a word, for messages and before its fingerprint.
        KINDS: classes of transformers that it may be.
        name: how the user calls it.
        kind: which of the classes it is.
        fingerprint: hash of all that decides what it answers.
        pixels: how an image file becomes what the model is given.
    """

    WHAT: ClassVar[str]
    KINDS: ClassVar[Collection[str]]

    def __init__(self, name: str, *, device: str, precision: Precision) -> None:
        """Reads the config files and hashes the weights. Imports neither torch nor transformers.

        Args:
            name: hf:ORG/NAME[@REVISION], or hf:FOLDER.
            device: a torch device, or "auto".
            precision: "fp32", "bf16", or "auto".

        Raises:
            UsageError: there is no such folder, and no such model on the hub.
            EncoderError: the model is not on this disk and cannot be downloaded, is damaged, or is of another kind.
        """
        found = find_model(name.removeprefix("hf:"))
        self.name, self.folder = found.name, found.folder
        self._config: dict[str, Any] = read_json(self.folder / "config.json")
        classes = self._config.get("architectures") or []
        self.kind = next((one for one in classes if one in self.KINDS), "")
        if not self.kind:
            what = ", ".join(map(str, classes)) or self._config.get("model_type")
            raise EncoderError(f"{self.name} is no {self.WHAT} ({what}): known are {', '.join(self.KINDS)}")
        pictures = read_preprocessing(self.folder)
        self._seen = Seen.of(pictures)
        self.pixels = self._seen.pixels
        files = [*weight_files(self.folder), *tokenizer_files(self.folder)]
        settings = {"kind": self.kind, "pictures": pictures, "config": self._config, **self._decides()}
        self.fingerprint = f"{self.WHAT}-" + digest(files, settings)[:24]
        self._device, self._precision = device, precision
        self._using = threading.Lock()

    def _decides(self) -> dict[str, Any]:
        """What else decides the answers, JSON-ready."""
        raise NotImplementedError
