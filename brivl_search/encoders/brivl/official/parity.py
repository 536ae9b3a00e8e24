"""Parity: does an encoder reproduce the vectors that the published weights gave for the sample in BriVL's repository?

The sample is a folder with three pictures, example.jsonl (`image_id`, `sentences`, `bbox`), and the vectors that the
published code wrote for them: np_img.npy and np_text.npy, float32 (n, dim), unit length. The text of a picture is its
`sur_text`.

Pixels are not rounded to whole grey levels here, because the published code did not round them; an index does. For
brivl-mini, rounding changed scores by up to 0.006 (63 photos, scaled without antialiasing).
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.images import decode, read_file
from brivl_search.corpus.pixels import PixelSpec, sample_bilinear
from brivl_search.encoders.base import Origin
from brivl_search.encoders.brivl.boxes import BoxFile
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.errors import CorpusError, EncoderError, ImageError, UsageError

RECORDS, IMAGES, TEXTS = "example.jsonl", "np_img.npy", "np_text.npy"
TOLERANCE = 0.01


@dataclass(frozen=True)
class ParityReport:
    """The comparison, one value per picture.

    Attributes:
        names: file names of the pictures.
        scores: cosine of the encoder's vectors of each picture and its text.
        published: the same cosine of the sample's vectors; .611, .818 and .744 for BriVL 1.0.
        image_cosines: cosine of the encoder's and the sample's vector of each picture.
        text_cosines: the same for the texts.
    """

    names: list[str]
    scores: list[float]
    published: list[float]
    image_cosines: list[float]
    text_cosines: list[float]

    @property
    def ok(self) -> bool:
        """Whether every score is within `TOLERANCE` of the published one."""
        return all(abs(a - b) <= TOLERANCE for a, b in zip(self.scores, self.published, strict=True))


def check_sample(encoder: BriVLEncoder, folder: Path) -> ParityReport:
    """Embeds the sample's pictures, with its boxes, and its texts, and compares the vectors.

    Raises:
        UsageError: the folder is not a sample.
        CorpusError: a picture or a line of it cannot be read.
        EncoderError: the encoder's vectors have another length.
    """
    for name in (RECORDS, IMAGES, TEXTS):
        if not (folder / name).is_file():
            raise UsageError(f"{folder} is not a BriVL sample: it has no {name}; give its folder with `sample`")
    records = _records(folder / RECORDS)
    image_vectors, text_vectors = _vectors(folder / IMAGES), _vectors(folder / TEXTS)
    if not len(records) == len(image_vectors) == len(text_vectors):
        raise CorpusError(f"{folder}: {len(records)} lines, {len(image_vectors)} pictures, {len(text_vectors)} texts")
    if encoder.dim != image_vectors.shape[1]:
        raise EncoderError(f"{encoder.name} gives {encoder.dim} dimensions, the sample has {image_vectors.shape[1]}")
    pixels, origins, texts = [], [], []
    for record in records:
        path = folder / Path(str(record.get("image_id", ""))).name
        try:
            square, origin = _picture(path, encoder.pixels)
        except ImageError as error:
            raise CorpusError(f"{path}: {error}") from None
        pixels.append(square)
        origins.append(origin)
        texts.append(_sentence(record, folder / RECORDS))
    given = encoder.boxes
    encoder.boxes = BoxFile(folder / RECORDS) if any("bbox" in record for record in records) else given
    try:
        images = encoder.encode_unrounded(np.stack(pixels), origins)
    finally:
        encoder.boxes = given
    words = encoder.encode_texts(texts)
    return ParityReport(
        [Path(origin.path).name for origin in origins],
        _cosines(images, words),
        _cosines(image_vectors, text_vectors),
        _cosines(images, image_vectors),
        _cosines(words, text_vectors),
    )


def _picture(path: Path, spec: PixelSpec) -> tuple[NDArray[np.float64], Origin]:
    """A picture as float64 (S, S, 3), 0..255."""
    data = read_file(str(path))
    picture = decode(data, spec)
    if spec.antialias or spec.resize != "squash":
        return picture.pixels.astype(np.float64), Origin(str(path.absolute()), picture.width, picture.height)
    from PIL import Image  # the bytes have just been found sound

    whole = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    height, width = whole.shape[:2]
    square = sample_bilinear(whole, (0.0, 0.0, float(width), float(height)), spec.size)
    return square.astype(np.float64), Origin(str(path.absolute()), width, height)


def _cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> list[float]:
    return [float(value) for value in (a * b).sum(1)]


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path} cannot be read: {error}") from None
    if not records or not all(isinstance(record, dict) for record in records):
        raise CorpusError(f"{path} does not hold JSON objects, one a line")
    return records


def _vectors(path: Path) -> NDArray[np.float32]:
    try:
        array: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path} cannot be read: {error}") from None
    if array.ndim != 2 or array.dtype != np.float32:
        raise CorpusError(f"{path} must be float32 (pictures, dim), not {array.dtype} {array.shape}")
    return array


def _sentence(record: dict[str, Any], where: Path) -> str:
    """The `sur_text` of a record, for which the sample's text vectors were made."""
    for entry in record.get("sentences") or ():
        if isinstance(entry, list) and len(entry) == 2 and entry[0] == "sur_text":
            return str(entry[1])
    raise CorpusError(f"{where}: {record.get('image_id')} has no sentence of kind sur_text")
