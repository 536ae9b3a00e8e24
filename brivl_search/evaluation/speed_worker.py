"""The process that measures one encoder: `evaluation.speed` starts it, tells it what to do, and reads its file.

It imports nothing of torch before the encoder does, and loads a tower when it is first used, as a user's process would.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brivl_search.encoders.inputs import fitted
from brivl_search.errors import BrivlSearchError

BATCH = 64  # pictures, at most; fewer where a batch would take too long
TEXT_BATCH = 256
MADE = 64  # pictures


def measure(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Loads the encoder, takes its first text and its first picture, then measures batches.

    Args:
        asked: `name`, `options` (of `load_encoder`), `pictures` (paths), `seconds`, `began` (time.time() of the start).

    Returns:
        The fields of `encoders.speeds.Speed` that are measured here.

    Raises:
        BrivlSearchError: the encoder cannot be loaded, or a picture not be read.
    """
    from brivl_search.encoders import load_encoder

    encoder = load_encoder(asked["name"], **asked["options"])
    texts = made_texts()
    encoder.encode_texts(texts[:1])
    text_ready = time.time() - asked["began"]
    spec = encoder.pixels
    made = fitted(made_pixels(MADE, spec.size), spec)
    start = time.perf_counter()
    encoder.encode_images(made[:1])
    image_ready = time.perf_counter() - start
    pixels = decoded(asked["pictures"], spec) if asked["pictures"] else made
    alone = rate(lambda at: encoder.encode_images(taken(pixels, at, 1)), 1, 0)
    batch = int(min(BATCH, max(1, alone * asked["seconds"] / 4)))
    images = rate(lambda at: encoder.encode_images(taken(pixels, at, batch)), batch, asked["seconds"])
    said = rate(lambda at: encoder.encode_texts(taken(texts, at, TEXT_BATCH)), TEXT_BATCH, asked["seconds"] / 4)
    device, precision, gpu_memory = where(encoder, asked["options"])
    return {
        "fingerprint": encoder.fingerprint,
        "device": device,
        "precision": precision,
        "images": images,
        "batch": batch,
        "texts": said,
        "memory": peak(),
        "gpu_memory": gpu_memory,
        "text_ready": text_ready,
        "image_ready": image_ready,
    }


def rate(call: Callable[[int], Any], count: int, seconds: float) -> float:
    """Items/s of `call(0)`, `call(1)`, ..., each of `count` items: the median call. Two are made before, untimed."""
    for at in range(2):
        call(at)
    took: list[float] = []
    began = time.perf_counter()
    while len(took) < 3 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        call(2 + len(took))
        took.append(time.perf_counter() - start)
    return count / float(np.median(took))


def taken(items: Any, at: int, count: int) -> Any:
    """`count` of the items from the place of batch `at` on, going round."""
    numbers = [(at * count + number) % len(items) for number in range(count)]
    return items[numbers] if isinstance(items, np.ndarray) else [items[number] for number in numbers]


def made_pixels(count: int, side: int) -> np.ndarray:
    """Pictures of blotches, uint8 (count, side, side, 3)."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, -(-side // 8), -(-side // 8), 3), dtype=np.uint8)
    found: np.ndarray = np.ascontiguousarray(coarse.repeat(8, 1).repeat(8, 2)[:, :side, :side])
    return found


def made_texts() -> list[str]:
    """Short captions, half Chinese, half English, all different."""
    things = {"dog": "狗", "cat": "猫", "red car": "红色的汽车", "child": "孩子", "boat": "船", "temple": "寺庙"}
    places = {"on the grass": "草地上", "in the snow": "雪地里", "at night": "夜晚", "near water": "水边"}
    return [
        text
        for number in range(1, 12)
        for thing, zh in things.items()
        for place, there in places.items()
        for text in (f"a photo of {number} times a {thing} {place}", f"{there}有{number}个{zh}的照片")
    ]


def decoded(paths: Sequence[str], spec: Any) -> np.ndarray:
    """uint8 (n, S, S, 3) of the pictures that can be read; at least one."""
    from brivl_search.corpus.images import load_pixels
    from brivl_search.errors import CorpusError, ImageError

    found = []
    for path in paths:
        try:
            found.append(load_pixels(path, spec))
        except ImageError:
            continue
    if not found:
        raise CorpusError(f"none of {len(paths):,} pictures can be read, such as {paths[0]}")
    return np.stack(found)


def where(encoder: Any, options: Mapping[str, str]) -> tuple[str, str, int | None]:
    """The device, the precision, and the most bytes taken of a GPU, as far as the encoder says."""
    device, precision = getattr(encoder, "device", None), options.get("precision", "auto")
    if device is None:
        return options.get("device", "auto"), precision, None
    if precision == "auto":
        from brivl_search.encoders.device import has_fast_bf16

        precision = "bf16" if has_fast_bf16(device) else "fp32"
    if device.type != "cuda":
        return str(device), precision, None
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})", precision, torch.cuda.max_memory_allocated(device)


def peak() -> int | None:
    """Bytes of this process at its peak. Linux counts those of the parent into `ru_maxrss`, but not into VmHWM."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def main() -> None:
    """Answers in the file that is named on stdin: what was measured, or `error`, a line."""
    asked = json.loads(sys.stdin.read())
    try:
        answer = measure(asked)
    except (BrivlSearchError, OSError, MemoryError) as error:
        answer = {"error": " ".join(str(error).split()) or type(error).__name__}
    Path(asked["out"]).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
