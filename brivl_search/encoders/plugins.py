"""Encoders of other packages, found by the entry point group `brivl_search.encoders`.

An entry point NAME = "package.module:make" provides the encoders NAME and NAME:ARGUMENT. It is called as
make(ARGUMENT or "", device=..., precision=...) and returns an `Encoder`. docs/encoders.md shows a whole plug-in.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import numpy as np

from brivl_search.corpus.images import PixelSpec
from brivl_search.corpus.spelling import Spelling
from brivl_search.encoders import base
from brivl_search.encoders.base import Encoder, LoadedEncoder, Origin, Pictures, Texts, encode_pictures
from brivl_search.encoders.calibration import Calibration
from brivl_search.encoders.confidence import Confidence
from brivl_search.encoders.inputs import as_texts, encode_any
from brivl_search.errors import BrivlSearchError, EncoderError

GROUP = "brivl_search.encoders"
_SPELLING = Spelling()
_NEEDED = (
    "name",
    "dim",
    "fingerprint",
    "pixels",
    "calibration",
    "encode_images",
    "encode_texts",
    "warm_up",
    "cut_tokens",
)


class PluggedEncoder:
    """A plug-in's encoder as `load_encoder` returns it: it takes pictures and texts in any form.

    The plug-in itself is given ready batches and sequences of str only. All its other attributes are reachable here.

    Attributes:
        plugged: what the plug-in returned.
        calibration: that of the plug-in, or the user's own.
    """

    name: str
    dim: int
    fingerprint: str
    pixels: PixelSpec

    def __init__(self, plugged: Encoder) -> None:
        self.plugged = plugged
        self.calibration: Calibration | None = plugged.calibration
        self.confidence: Confidence | None = None

    def __getattr__(self, attribute: str) -> Any:
        if attribute == "plugged":  # not there yet: while copying, say
            raise AttributeError(attribute)
        return getattr(self.plugged, attribute)

    def __repr__(self) -> str:
        return f"PluggedEncoder({self.plugged!r})"

    @property
    def has_sides(self) -> bool:
        """See `brivl_search.encoders.base.LoadedEncoder`."""
        return base.has_sides(self.plugged)

    def encode_images(self, pictures: Pictures) -> np.ndarray:
        """See `brivl_search.encoders.base.LoadedEncoder`."""
        return encode_any(pictures, self.pixels, self.dim, self._encode_pixels)

    def encode_pictures(self, pixels: np.ndarray, origins: Sequence[Origin]) -> np.ndarray:
        """A ready batch; a plug-in that asks where pixels come from is told."""
        return encode_pictures(self.plugged, pixels, origins)

    def _encode_pixels(self, pixels: np.ndarray, origins: Sequence[Origin] | None) -> np.ndarray:
        return self.plugged.encode_images(pixels) if origins is None else self.encode_pictures(pixels, origins)

    def encode_texts(self, texts: Texts) -> np.ndarray:
        """See `brivl_search.encoders.base.LoadedEncoder`."""
        listed = self.spelled(as_texts(texts))
        return self.plugged.encode_texts(listed) if listed else np.empty((0, self.dim), dtype=np.float32)

    def encode_queries(self, texts: Texts) -> np.ndarray:
        """See `brivl_search.encoders.base.LoadedEncoder`."""
        listed = self.spelled(as_texts(texts))
        return base.encode_queries(self.plugged, listed) if listed else np.empty((0, self.dim), dtype=np.float32)

    def warm_up(self) -> None:
        self.plugged.warm_up()

    def cut_tokens(self, texts: Texts) -> list[int]:
        return self.plugged.cut_tokens(self.spelled(as_texts(texts)))

    def unknown_words(self, texts: Texts) -> list[list[str]]:
        """What the plug-in says; none where it says nothing."""
        return base.unknown_words(self.plugged, self.spelled(as_texts(texts)))

    def spelled(self, texts: Sequence[str]) -> list[str]:
        """Texts as the plug-in gets them: its own spelling, or that of a model whose vocabulary is not known."""
        return self.plugged.spelled(texts) if isinstance(self.plugged, base.Spells) else list(map(_SPELLING, texts))


def plugins() -> dict[str, list[EntryPoint]]:
    """Every registered name and its entry points. Two packages may claim one name: that fails when it is loaded."""
    found: dict[str, list[EntryPoint]] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        if point not in found.setdefault(point.name, []):
            found[point.name].append(point)
    return found


def package_of(point: EntryPoint) -> str:
    """The name and version of the package that an entry point comes from; its module if there is no package."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.module


def load_plugin(name: str, *, device: str, precision: str) -> LoadedEncoder | None:
    """The encoder that a plug-in makes for `name`; None if no plug-in has this name.

    Raises:
        EncoderError: two packages claim the name, the plug-in fails, or it returns something that is no encoder.
    """
    scheme, _, argument = name.partition(":")
    points = plugins().get(scheme, [])
    if not points:
        return None
    owners = " and ".join(package_of(point) for point in points)
    if len(points) > 1:
        raise EncoderError(f"{owners} both register the encoder {scheme!r}: uninstall one of them")
    try:
        encoder: Encoder = points[0].load()(argument, device=device, precision=precision)
    except BrivlSearchError:
        raise
    except Exception as error:  # code that is not ours
        reason = " ".join(str(error).split())[:300]
        raise EncoderError(
            f"the encoder plug-in {scheme!r} of {owners} failed: {type(error).__name__}: {reason}"
        ) from None
    _check(encoder, scheme, owners)
    return PluggedEncoder(encoder)


def _check(encoder: Encoder, scheme: str, owners: str) -> None:
    """Raises EncoderError for faults that would otherwise show only after an index was built."""
    missing = [attribute for attribute in _NEEDED if not hasattr(encoder, attribute)]
    wrong = ""
    if missing:
        wrong = f"has no {', '.join(missing)}"
    elif not isinstance(encoder.pixels, PixelSpec):
        wrong = "pixels is no PixelSpec"
    elif not isinstance(encoder.dim, int) or encoder.dim < 1:
        wrong = f"dim is {encoder.dim!r}"
    elif not isinstance(encoder.fingerprint, str) or not encoder.fingerprint:
        wrong = "fingerprint is no text"
    elif not isinstance(encoder.name, str) or encoder.name.partition(":")[0] != scheme:
        wrong = f"its name is {encoder.name!r}, by which an index could not load it again: {scheme} or {scheme}:..."
    if wrong:
        raise EncoderError(f"the encoder plug-in {scheme!r} of {owners} does not return an encoder: {wrong}")
