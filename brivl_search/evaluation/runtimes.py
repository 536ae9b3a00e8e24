"""How fast each runtime and precision computes an encoder's image tower here, and what it costs in recall."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from brivl_search.corpus.dataset import Dataset
from brivl_search.encoders.cpu import multiplies_bf16
from brivl_search.encoders.registry import load_encoder, without_precision
from brivl_search.encoders.runtimes.choice import Choice, installed
from brivl_search.encoders.runtimes.made import squares
from brivl_search.encoders.runtimes.measured import Measured
from brivl_search.evaluation.dataset import evaluate_dataset
from brivl_search.evaluation.result import EvaluationOptions

_PICTURES, _ROUNDS = 64, 3
_K = 10


def ways() -> list[Choice]:
    """What could compute a tower with what is installed here, torch in float32 first."""
    out = [Choice("torch", "fp32")]
    if multiplies_bf16():
        out.append(Choice("torch", "bf16"))
    if installed("onnx"):
        out += [Choice("onnx", "fp32"), Choice("onnx", "int8")]
    if installed("openvino"):
        out.append(Choice("openvino", "fp32"))
        if multiplies_bf16():
            out.append(Choice("openvino", "bf16"))
        if installed("onnx"):  # which makes it
            out.append(Choice("openvino", "int8"))
    return out


def measure(
    name: str,
    dataset: Dataset | None,
    note: Callable[[str], None] = lambda line: None,
    advance: Callable[[int], None] = lambda steps: None,
) -> tuple[str, list[Measured]]:
    """Measures every way on made pictures, and its recall@10 on a dataset if there is one. Takes minutes.

    Args:
        name: of the encoder.
        dataset: pictures with captions.
        note: told what is measured next.
        advance: told how many images and captions are embedded.

    Returns:
        The fingerprint of its vectors in float32, and what was measured; ways that torch had to take over are left out.

    Raises:
        EncoderError: there is no such encoder.
    """
    name, _ = without_precision(name)
    plain: Any = load_encoder(name, runtime="torch", precision="fp32", device="cpu")
    made = squares(_PICTURES, plain.pixels, seed=2)
    wanted = plain.encode_images(made)
    found: list[Measured] = []
    for way in ways():
        note(str(way))
        encoder: Any = plain
        if way != Choice("torch", "fp32"):
            encoder = load_encoder(name, runtime=way.runtime, precision=way.precision, device="cpu")
        vectors = encoder.encode_images(made)
        tower = None if way.runtime == "torch" else encoder.exports.tower("image")
        if way.runtime != "torch" and tower is None:
            continue
        if way == Choice("onnx", "int8"):
            encoder.exports.tower("text")  # kept, or refused for its cosine: `store.small_texts` tells
        rate = _PICTURES / min(_seconds(encoder, made) for _ in range(_ROUNDS))
        recall = None if dataset is None else _recall(encoder, dataset, advance)
        lost = None if recall is None or not found or found[0].recall is None else found[0].recall - recall
        cosine = float((vectors * wanted).sum(1).min())
        same = tower is None or (tower.facts.same and cosine >= tower.facts.least)  # these are more pictures
        lost = 0.0 if recall is not None and not found else lost
        found.append(Measured(way.runtime, way.precision, rate, cosine, same, recall, lost))
    return plain.fingerprint, found


def _seconds(encoder: Any, made: np.ndarray) -> float:
    start = time.perf_counter()
    encoder.encode_images(made)
    return time.perf_counter() - start


def _recall(encoder: Any, dataset: Dataset, advance: Callable[[int], None]) -> float:
    both = evaluate_dataset(dataset, encoder, [_K], advance, options=EvaluationOptions(bootstrap=None)).both["exact"]
    assert both is not None
    return float(both["mean_recall"])
