"""Small pictures for tests: coloured shapes with captions in two languages, and every kind of bad file."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import struct
import time
import zlib
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from brivl_search.corpus.images import DecodedImage, PixelSpec, decode

COLOURS = {
    "red": ("红色", (220, 30, 30)),
    "green": ("绿色", (30, 170, 60)),
    "blue": ("蓝色", (40, 70, 220)),
    "yellow": ("黄色", (240, 210, 40)),
    "black": ("黑色", (15, 15, 15)),
    "purple": ("紫色", (140, 50, 170)),
}
SHAPES = {"circle": "圆形", "square": "正方形", "triangle": "三角形", "cross": "十字", "ring": "圆环"}


def draw(colour: str, shape: str, size: tuple[int, int] = (96, 96), seed: int | None = None) -> Image.Image:
    """One shape on a light ground; `seed` moves it about a little."""
    width, height = size
    rng = random.Random(seed)
    side = min(size) * (0.7 if seed is None else rng.uniform(0.45, 0.75))
    cx, cy = width / 2, height / 2
    if seed is not None:
        cx += rng.uniform(-0.12, 0.12) * width
        cy += rng.uniform(-0.12, 0.12) * height
    ground = (245, 245, 240) if seed is None else tuple(rng.randint(225, 255) for _ in range(3))
    image = Image.new("RGB", size, ground)
    pen = ImageDraw.Draw(image)
    fill = COLOURS[colour][1]
    half, thick = side / 2, side / 6
    box = (cx - half, cy - half, cx + half, cy + half)
    if shape == "circle":
        pen.ellipse(box, fill=fill)
    elif shape == "square":
        pen.rectangle(box, fill=fill)
    elif shape == "triangle":
        pen.polygon([(cx, cy - half), (cx - half, cy + half), (cx + half, cy + half)], fill=fill)
    elif shape == "cross":
        pen.rectangle((cx - half, cy - thick, cx + half, cy + thick), fill=fill)
        pen.rectangle((cx - thick, cy - half, cx + thick, cy + half), fill=fill)
    elif shape == "ring":
        pen.ellipse(box, outline=fill, width=max(2, int(thick)))
    else:
        raise ValueError(shape)
    return image


def captions(colour: str, shape: str) -> dict[str, list[str]]:
    zh_colour, zh_shape = COLOURS[colour][0], SHAPES[shape]
    return {
        "zh": [f"一个{zh_colour}的{zh_shape}", f"图中有{zh_colour}{zh_shape}"],
        "en": [f"a {colour} {shape}", f"the picture shows a {shape} in {colour}"],
    }


def write_corpus(folder: Path, n: int = 30, size: tuple[int, int] = (96, 96), with_captions: bool = True) -> list[Path]:
    """Write n different pictures into FOLDER/images and their captions into FOLDER/captions.jsonl."""
    kinds = [(colour, shape) for shape in SHAPES for colour in COLOURS]
    (folder / "images").mkdir(parents=True, exist_ok=True)
    paths, lines = [], []
    for i in range(n):
        colour, shape = kinds[i % len(kinds)]
        path = folder / "images" / f"{i:04d}-{colour}-{shape}.jpg"
        draw(colour, shape, size, seed=i).save(path, quality=90)
        paths.append(path)
        lines.append({"image": f"images/{path.name}", **captions(colour, shape)})
    if with_captions:
        write_lines(folder / "captions.jsonl", lines)
    return paths


def write_lines(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(size: tuple[int, int] = (96, 64), colour: str = "red", shape: str = "circle", **options: Any) -> bytes:
    return encoded(draw(colour, shape, size), "JPEG", **options)


def noise_jpeg(size: tuple[int, int] = (256, 256)) -> bytes:
    """Large for its size in pixels, so that cutting it loses image data."""
    return encoded(Image.frombytes("RGB", size, random.Random(0).randbytes(3 * size[0] * size[1])), "JPEG", quality=95)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb_png(width: int = 60_000, height: int = 50_000) -> bytes:
    """A few bytes that claim three gigapixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = png_chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + body


def bad_bytes() -> dict[str, tuple[bytes, str]]:
    """name -> (content, the reason decoding must give)."""
    good_png = encoded(draw("blue", "square"), "PNG")
    broken = bytearray(good_png)
    at = broken.index(b"IDAT") + 12
    broken[at : at + 8] = b"\xff" * 8
    webp = encoded(draw("blue", "ring"), "WEBP")
    return {
        "truncated.jpg": (noise_jpeg()[:20_000], "truncated"),
        "truncated.png": (good_png[: len(good_png) // 2], "truncated"),
        "broken.png": (bytes(broken), "corrupt"),
        "header-only.jpg": (jpeg()[:20], "corrupt"),
        "half.webp": (webp[: len(webp) // 2], "corrupt"),
        "bomb.png": (bomb_png(), "too large"),
        "text.jpg": (b"this is not an image at all\n" * 20, "not an image"),
        "page.png": (b"<!DOCTYPE html><html></html>", "not an image"),
        "script.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
        "photo.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64, "corrupt"),
        "empty.jpg": (b"", "empty file"),
    }


def write_bad_files(folder: Path) -> dict[str, str]:
    """Write all of `bad_bytes`; returns name -> reason."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = bad_bytes()
    for name, (content, _) in kinds.items():
        (folder / name).write_bytes(content)
    return {name: reason for name, (_, reason) in kinds.items()}


def reads_everything(folder: Path) -> bool:
    """Whether file permissions mean nothing to this user (root, as a rule)."""
    path = folder / "locked"
    path.write_bytes(b"x")
    path.chmod(0)
    try:
        path.read_bytes()
    except PermissionError:
        return False
    finally:
        path.unlink()
    return True


# A decoder for the pool's tests; worker processes import it by name. The content of a file says how it misbehaves.
CRASH, EXIT, HANG, RAISE = b"please-crash", b"please-exit", b"please-hang", b"please-raise"


def naughty_decode(data: bytes, spec: PixelSpec, *, max_megapixels: float) -> DecodedImage:
    if data == CRASH:
        os.kill(os.getpid(), signal.SIGSEGV)
    if data == EXIT:
        os._exit(7)
    if data == HANG:
        time.sleep(600)
    if data == RAISE:
        raise KeyError("a bug in a decoder")
    return decode(data, spec, max_megapixels=max_megapixels)
