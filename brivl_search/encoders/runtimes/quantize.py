"""An ONNX file in float32 → int8: weights by channel, the first and last layers and the patch convolution spared.

A transformer's activations are scaled anew for every batch (dynamic): its outliers differ from picture to picture. A
CNN's are scaled by the ranges that pictures gave (static), and its convolutions then compute in int8 alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.encoders.runtimes.choice import Choice
from brivl_search.errors import DependencyError, EncoderError, install_hint

RECIPE = "int8-1"  # part of the fingerprint of its vectors
PICTURES = 256  # for the ranges of a CNN
_CHUNK = 16
_CNN = 8  # convolutions; a transformer has one or a few


def int8(source: Path, target: Path, choice: Choice, pictures: Callable[[], NDArray[np.uint8]]) -> None:
    """Writes the int8 form of a tower. Tables of embeddings stay in float32, of which a text takes a few rows.

    Args:
        source: the tower in float32.
        target: the file.
        choice: for which runtime.
        pictures: gives uint8 (n, S, S, 3) for the ranges of a CNN's activations; asked for a CNN alone.

    Raises:
        DependencyError: onnx or ONNX Runtime is not installed.
        EncoderError: nothing of it can be computed in int8.
    """
    try:
        import onnx
        from onnxruntime.quantization import (
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_dynamic,
            quantize_static,
        )
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise DependencyError(f"int8 needs {error.name}: {install_hint('onnx')}") from None
    folded = target.with_name("folded.onnx")
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises to do what was just done
    try:
        quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)
        graph = onnx.load(str(folded), load_external_data=False).graph
        convolutions = [node.name for node in graph.node if node.op_type == "Conv"]
        products = _products(graph)
        cnn = len(convolutions) >= _CNN
        layers = convolutions if cnn else products
        spared = [*layers[:1], *layers[-1:], *(products if cnn else convolutions)]
        spared += [f"{name}_MatMul" for name in spared]  # what a Gemm becomes before it is looked at
        if len(layers) < 3:
            raise EncoderError("it has no layers between the first and the last")
        if cnn:
            quantize_static(
                str(folded),
                str(target),
                _Pictures(pictures()),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                nodes_to_exclude=spared,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        elif choice.runtime == "onnx":
            quantize_dynamic(
                str(folded),
                str(target),
                op_types_to_quantize=["MatMul", "Gemm"],
                nodes_to_exclude=spared,
                per_channel=True,
                weight_type=QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True},
            )
        else:
            raise EncoderError("int8 of a transformer is for ONNX Runtime: give `runtime` onnx")
    finally:
        logging.disable(level)
        folded.unlink(missing_ok=True)


def _products(graph: Any) -> list[str]:
    """Matrix products with weights, in order."""
    weights = {one.name for one in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type in ("MatMul", "Gemm") and any(name in weights for name in node.input[:2])
    ]


class _Pictures:
    """Batches of pictures, as ONNX Runtime's calibration asks for them."""

    def __init__(self, pictures: NDArray[np.uint8]) -> None:
        self._pictures = pictures
        self._batches = self._all()

    def _all(self) -> Iterator[dict[str, NDArray[np.uint8]]]:
        for start in range(0, len(self._pictures), _CHUNK):
            yield {"pixels": self._pictures[start : start + _CHUNK]}

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return next(self._batches, None)

    def rewind(self) -> None:
        self._batches = self._all()
