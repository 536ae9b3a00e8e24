"""Boxes from an object detector.

The encoder's squares are small and squashed, so the detector gets the picture itself: it is read once more and scaled
so that its longer side has at most LONGEST pixels. Then the detector's own processor prepares it. If it is unknown
which picture some pixels were, the detector gets the square.

`hf:ORG/NAME`, `hf:FOLDER`: any object detector of transformers (DETR, RT-DETR, YOLOS, ...), with its own processor.
`torchvision:NAME`, `torchvision:NAME=WEIGHTS.pth`: a detection model of torchvision.

BriVL 1.0 used a Faster R-CNN trained for bottom-up attention, whose code does not run on current versions of torch.
Its boxes come in jsonl files (`brivl_search.encoders.brivl.boxes`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.images import PixelSpec, load_pixels
from brivl_search.encoders.base import Origin
from brivl_search.encoders.brivl.boxes import Boxes
from brivl_search.encoders.digests import file_sha256
from brivl_search.encoders.hf.family import read_preprocessing
from brivl_search.encoders.hf.files import digest, find_model, read_json, weight_files
from brivl_search.errors import EncoderError, ImageError, UsageError

MIN_SCORE = 0.01  # BriVL wants many regions, sure or not; below this a detector names background
BATCH = 8
LONGEST = 1333  # pixels; what DETR and Faster R-CNN were trained with


class Detector:
    """A `BoxSource` that runs a detector. The model is loaded with the first pictures."""

    def __init__(self, name: str, *, device: str = "auto", most: int = 36) -> None:
        """Finds the model and hashes its weights.

        Args:
            name: hf:… or torchvision:…, as above.
            device: a torch device, or "auto".
            most: how many boxes of a picture are kept, best first.

        Raises:
            UsageError: no such kind of detector, or no such model.
            EncoderError: the model is neither on this disk nor can it be downloaded.
        """
        self._most, self._device = most, device
        self._load: Callable[[], Callable[[NDArray[np.uint8]], list[tuple[Any, Any]]]]
        kind, _, rest = name.partition(":")
        if kind == "hf" and rest:
            found = find_model(rest)
            self.name, self._load = found.name, lambda: _transformers(found.folder, self.device)
            settings = [read_json(found.folder / "config.json"), read_preprocessing(found.folder)]
            own = digest(weight_files(found.folder), settings)
        elif kind == "torchvision" and rest:
            model, _, weights = rest.partition("=")
            place = Path(weights).expanduser().absolute() if weights else None
            self.name = name if place is None else f"torchvision:{model}={place}"
            self._load = lambda: _torchvision(model, place, self.device)
            own = _file_hash(place) if place else "default"
        else:
            raise UsageError(f"no detector {name!r}: give hf:ORG/NAME, hf:FOLDER, or torchvision:NAME[=WEIGHTS.pth]")
        self.fingerprint = (
            "detector-" + hashlib.sha256(f"{kind}\0{rest}\0{own}\0{most}\0{LONGEST}".encode()).hexdigest()
        )

    @cached_property
    def device(self) -> Any:
        from brivl_search.encoders.device import pick_device

        return pick_device(self._device)

    @cached_property
    def _detect(self) -> Callable[[NDArray[np.uint8]], list[tuple[Any, Any]]]:
        return self._load()

    def find(self, pixels: NDArray[np.uint8], origins: Sequence[Origin] | None) -> list[Boxes | None]:
        """See `BoxSource`. Every picture gets an array, which may be empty; never None."""
        import torch

        out: list[Boxes | None] = []
        pictures = (_whole(square, origins[at] if origins else None) for at, square in enumerate(pixels))
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            for some in _alike(pictures):
                for scores, boxes in self._detect(some):
                    best = scores.sort(descending=True, stable=True).indices[: self._most]
                    best = best[scores[best] >= MIN_SCORE]
                    shares: Boxes = boxes[best].clamp(0, 1).float().cpu().numpy().reshape(-1, 4)
                    out.append(shares)
        return out


def _whole(square: NDArray[np.uint8], origin: Origin | None) -> NDArray[np.uint8]:
    """The picture in its own aspect ratio, uint8 (H, W, 3); `square` if the picture cannot be read."""
    if origin is None or not (origin.path or origin.content):
        return square
    longer = max(origin.width, origin.height)
    spec = PixelSpec(min(longer, LONGEST), "squash", "bilinear")
    try:
        # Squares are what there is a safe decoder for; the longer side comes out of it as it shall be.
        pixels = load_pixels(origin.content or origin.path, spec)
    except ImageError:  # it was there a moment ago
        return square
    from PIL import Image

    size = [max(1, round(side * spec.size / longer)) for side in (origin.width, origin.height)]
    return np.asarray(Image.fromarray(pixels).resize((size[0], size[1]), Image.Resampling.BILINEAR))


def _alike(pictures: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Batches (n, H, W, 3) of neighbours with one size. Padding would change what some detectors see."""
    some: list[NDArray[np.uint8]] = []
    for picture in pictures:
        if some and (len(some) == BATCH or picture.shape != some[0].shape):
            yield np.stack(some)
            some = []
        some.append(picture)
    if some:
        yield np.stack(some)


def _transformers(folder: Path, device: Any) -> Callable[[NDArray[np.uint8]], list[tuple[Any, Any]]]:
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    try:
        processor = AutoImageProcessor.from_pretrained(folder)
        model = AutoModelForObjectDetection.from_pretrained(folder).to(device).eval()
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise EncoderError(f"detector {folder}: {' '.join(str(error).split())[:200]}") from None
    if not hasattr(processor, "post_process_object_detection"):
        raise EncoderError(f"detector {folder}: its image processor gives no boxes: take a model for object detection")

    def detect(pixels: NDArray[np.uint8]) -> list[tuple[Any, Any]]:
        inputs = processor(images=list(pixels), return_tensors="pt", input_data_format="channels_last").to(device)
        results = processor.post_process_object_detection(
            model(**inputs), threshold=0.0, target_sizes=[(1, 1)] * len(pixels)
        )
        return [(result["scores"], result["boxes"]) for result in results]

    return detect


def _torchvision(name: str, weights: Path | None, device: Any) -> Callable[[NDArray[np.uint8]], list[tuple[Any, Any]]]:
    import torch
    from torchvision.models import detection, get_model, list_models

    if name not in list_models(detection):
        raise UsageError(f"torchvision has no detector {name!r}: it has {', '.join(list_models(detection))}")
    try:
        if weights is None:
            model = get_model(name, weights="DEFAULT")
        else:
            model = get_model(name, weights=None, weights_backbone=None)
            model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, ValueError) as error:
        first = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"detector torchvision:{name}: {first}; without a network, give a file of its weights: {name}=WEIGHTS.pth"
        ) from None
    model = model.to(device).eval()

    def detect(pixels: NDArray[np.uint8]) -> list[tuple[Any, Any]]:
        images = torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(0, 3, 1, 2).float() / 255
        sides = torch.tensor([images.shape[3], images.shape[2]] * 2, device=device)
        return [(result["scores"], result["boxes"] / sides) for result in model(list(images))]

    return detect


def _file_hash(path: Path) -> str:
    try:
        return file_sha256(path)
    except EncoderError as error:
        raise UsageError(f"detector weights {error}: check the path") from None
