"""Makes an export in a process of its own: `python -m brivl_search.encoders.runtimes.make` with an order on stdin.

So a build or a server never imports torch, and the memory of the model in float32 is given back.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.encoders.runtimes import store, tokens
from brivl_search.encoders.runtimes.choice import SAFE, Choice
from brivl_search.encoders.runtimes.made import least_cosine
from brivl_search.encoders.runtimes.order import Order, UnexportableError
from brivl_search.errors import BrivlSearchError, EncoderError, system_error

if TYPE_CHECKING:
    from brivl_search.corpus.pixels import PixelSpec
    from brivl_search.encoders.on_torch import TorchEncoder

_LITTLE = 16 << 20  # bytes; with less the disk is full
CHECKED = 12  # pictures or texts that the export is compared on
_WRONG = 0.9  # below this cosine an int8 tower has lost its model, and a float32 one is another


def main() -> None:
    """The process: an order as JSON on stdin; a line of JSON with the cosine, or the error, on stdout."""
    order = Order(**json.load(sys.stdin))
    try:
        answer: dict[str, Any] = {"cosine": make(order).cosine}
    except (OSError, MemoryError) as error:
        known = system_error(error, order.place.parent)
        answer = {"error": str(known or f"{order.place.parent} cannot be written: {error}")}
    except BrivlSearchError as error:
        answer = {"error": str(error), "lasts": isinstance(error, UnexportableError)}
    print(json.dumps(answer))


def make(order: Order) -> store.Facts:
    """Exports, compares with torch, and gives the export its place in the cache.

    Raises:
        EncoderError: as `in_own_process`.
        OSError: the cache cannot be written.
    """
    from brivl_search.encoders.on_torch import TorchEncoder
    from brivl_search.encoders.registry import load_encoder

    encoder = load_encoder(order.name, device="cpu", precision="fp32", runtime="torch")
    if not isinstance(encoder, TorchEncoder):
        raise EncoderError(f"{order.name} cannot be exported: it is no encoder of torch")
    if encoder.fingerprint != order.fingerprint:
        raise EncoderError(f"{order.name} has changed since it was loaded: load it again")
    with store.filling(order.place) as temporary:
        try:
            return _fill(temporary, encoder, order)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # the runtimes raise what their parts raise
            if shutil.disk_usage(temporary).free < _LITTLE:  # they do not say so
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(order.place.parent)) from None
            raise UnexportableError(" ".join(str(error).split())[:300] or type(error).__name__) from None


def _fill(folder: Path, encoder: TorchEncoder, order: Order) -> store.Facts:
    import torch

    from brivl_search.encoders.runtimes.graph import export

    side = encoder.exportable(order.side)
    examples = [example(CHECKED) for example in (side.example, *side.more)]
    least = SAFE
    with torch.inference_mode():
        wanted = [side.module(*example).numpy() for example in examples]
        if order.precision == "bf16":
            with torch.autocast("cpu", torch.bfloat16):
                own = [side.module(*example).float().numpy() for example in examples]
            apart = min(least_cosine(*pair) for pair in zip(own, wanted, strict=True))
            least = min(SAFE, 1 - 2 * (1 - apart))  # runtimes round at other places, none of which is right
    path = folder / store.MODELS["onnx"]
    export(side, path, encoder.name)
    _convert(path, order.choice, encoder.pixels)
    given = [dict(zip(side.inputs, (tensor.numpy() for tensor in example), strict=True)) for example in examples]
    cosine = min(_cosine(folder, order, *pair) for pair in zip(given, wanted, strict=True))
    if not cosine >= (_WRONG if order.precision == "int8" else SAFE - 0.05):
        raise EncoderError(
            f"{encoder.name} cannot be exported: {order.choice} differs from torch (cosine {cosine:.3f})"
        )
    reading = _save_tokens(encoder, folder) if order.side == "text" else None
    texts = None if reading is None else reading.to_dict()
    facts = store.Facts(cosine, list(side.inputs), least, texts=texts, made_by=store.versions())
    facts.write(folder)
    return facts


def _convert(path: Path, choice: Choice, spec: PixelSpec) -> None:
    """The ONNX file in float32 → the files of a runtime and precision, in the same folder."""
    if choice.precision == "int8":
        from brivl_search.encoders.runtimes.made import squares
        from brivl_search.encoders.runtimes.quantize import PICTURES, int8

        smaller = path.with_name("int8.onnx")
        int8(path, smaller, choice, lambda: squares(PICTURES, spec, seed=1))
        smaller.replace(path)
    if choice.runtime == "onnx":
        from brivl_search.encoders.runtimes.session import optimized

        plain = path.rename(path.with_name("plain.onnx"))
        optimized(plain, path)
        plain.unlink()
    if choice.runtime == "openvino":
        import openvino

        from brivl_search.encoders.runtimes.openvino import shared_core

        model = shared_core().read_model(str(path))
        # Weights in float16 are more exact than bfloat16, in which they are computed, and half as large.
        openvino.save_model(model, str(path.with_suffix(".xml")), compress_to_fp16=choice.precision == "bf16")
        del model
        path.unlink()


def _cosine(folder: Path, order: Order, inputs: Mapping[str, NDArray[Any]], wanted: NDArray[np.float32]) -> float:
    """The least cosine of the export's vectors and torch's. Rows go in batches of several sizes."""
    from brivl_search.encoders.runtimes.exports import open_run

    run = open_run(folder, order.choice, order.side)
    found, start = [], 0
    while start < len(wanted):
        rows = slice(start, start + max(start, 1))  # 1, 1, 2, 4 ...
        found.append(run({name: values[rows] for name, values in inputs.items()}))
        start = rows.stop
    return least_cosine(np.concatenate(found), wanted)


def _save_tokens(encoder: TorchEncoder, folder: Path) -> tokens.Reading | None:
    """The tokenizer of an export; None if it is not to be had, or does not give the same ids."""
    from brivl_search.encoders.runtimes.made import texts

    reading = encoder.save_tokens(folder)
    if reading is None:
        return None
    said = texts(CHECKED)
    fast = tokens.FastTokens(tokens.read_file(folder / tokens.FILE), reading)
    ours, theirs = fast.batch(said), encoder.tokenized(said)
    if all(np.array_equal(ours[name], values) for name, values in theirs.items()):
        return reading
    (folder / tokens.FILE).unlink()
    return None


if __name__ == "__main__":
    main()
