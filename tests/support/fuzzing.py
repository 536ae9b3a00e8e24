"""Mutated caption files and pictures, and what reading one may end as; shared by the test and the soak.

    python -m tests.support.fuzzing FORMAT CASES SEED NOTE   decode mutated pictures here, a report to stdout

NOTE is a file that always names the case under way, for when the process does not survive it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brivl_search.corpus.captions import BadLine, CaptionLine, read_captions
from brivl_search.corpus.dataset import load_dataset
from brivl_search.corpus.decode_pool import _memory
from brivl_search.corpus.decode_worker import cap_memory, settle_in
from brivl_search.corpus.images import DecodedImage, PixelSpec, decode
from brivl_search.errors import CorpusError, ImageError, UsageError
from tests.support.folders import REPO
from tests.support.pictures import captions, draw, encoded, png_chunk

# -- bytes -------------------------------------------------------------------------------------------------------

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to four damages of every kind that a disk, a transfer or an enemy does."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(out) + 1)
        if rng.random() < 0.4:
            at = min(at, rng.randrange(64))  # headers decide most
        size = rng.choice((1, 2, 4, 16, 200, 3000))
        kind = rng.randrange(8)
        if kind == 0:
            for spot in rng.choices(range(len(out)), k=rng.choice((1, 3, 30))) if out else ():
                out[spot] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[at:]
        elif kind == 2:
            del out[at : at + size]
        elif kind == 3:
            out[at:at] = out[at : at + size] * rng.choice((1, 2, 20))
        elif kind == 4:
            out[at:at] = rng.randbytes(size)
        elif kind == 5:
            out[at : at + size] = bytes([rng.choice((0, 0xFF))]) * size
        elif kind == 6:
            out[at : at + 4] = struct.pack(rng.choice("<>") + "I", rng.choice(EXTREMES))
        else:
            out[at : at + 2] = struct.pack(rng.choice("<>") + "H", rng.choice(EXTREMES) & 0xFFFF)
    return bytes(out)


# -- captions ----------------------------------------------------------------------------------------------------

BAD_LINES = {
    "not JSON", "not an object", "no `image`", "`image` is not a string", "`image` is not a file name",
    "lone surrogates", "empty caption", "no caption", "invalid UTF-8", "line too long",
    *(f"`{name}` is not a string or a list of strings" for name in ("zh", "en", "captions")),
}  # fmt: skip
VALID = "".join(
    json.dumps({"image": f"images/{colour}.jpg", **captions(colour, "ring")}, ensure_ascii=colour == "red") + "\n"
    for colour in ("red", "green", "blue", "yellow")
).encode()


def _value(rng: random.Random, depth: int = 0) -> str:
    """JSON text of a random value, some of it absurd."""
    kind = rng.randrange(12 if depth < 4 else 8)
    if kind == 0:
        return rng.choice(("null", "true", "NaN", "-Infinity", "1e999999", "-0", "\x00", "'x'", "tru", '"\\ud83d"'))
    if kind == 1:
        return str(rng.randrange(10 ** rng.choice((1, 20, 300))))
    if kind == 2:
        return "9" * rng.choice((4000, 5000, 20_000))
    if kind == 3:
        return '"' + rng.choice(("\\ud800", "\\udfff\\ud800", "\\u0000", "\\udce9", "\\x", "\n", "\u2028")) * 3 + '"'
    if kind == 4:
        deep = rng.choice((50, 1_000, 20_000))
        return rng.choice(("[" * deep, "[" * deep + "]" * deep, '{"a":' * deep, '{"a":' * deep + "1" + "}" * deep))
    if kind == 5:
        return json.dumps("字x" * rng.choice((0, 1, 4000)))
    if kind in (6, 7):
        return json.dumps(rng.choice(("a.jpg", "狗", "", " ", "../" * 500 + "a", "/" * 99, "a\0b", ".")))
    if kind < 10:
        return "[" + ",".join(_value(rng, depth + 1) for _ in range(rng.choice((0, 1, 3)))) + "]"
    return "{" + ",".join(f'"k{n}":{_value(rng, depth + 1)}' for n in range(rng.choice((0, 1, 3)))) + "}"


def caption_file(rng: random.Random) -> bytes:
    """A caption file gone wrong: damaged bytes, or well-formed nonsense between good lines."""
    if rng.random() < 0.5:
        return mutated(VALID, rng)
    fields = {name: _value(rng) for name in rng.sample(("image", "zh", "en", "captions", "x"), rng.randint(1, 5))}
    if rng.random() < 0.8:
        fields["image"] = rng.choice(('"a.jpg"', '"a.jpg"', '"a.jpg"', '"\\u0000"', '""', "[]", '"\\ud800"'))
    line = "{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}"
    raw = (line if rng.random() < 0.9 else _value(rng)).encode("utf-8", "surrogatepass")
    return b"\n".join((VALID, raw if rng.random() < 0.8 else mutated(raw, rng), VALID))


def check_captions(path: Path, content: bytes) -> Counter[str]:
    """Every line is good or bad for a reason that is known, in order, and messages can be printed."""
    path.unlink(missing_ok=True)  # writing over a file makes some file systems wait for the disk
    path.write_bytes(content)
    reasons: Counter[str] = Counter()
    before = 0
    for line in read_captions(path):
        assert line.line > before
        before = line.line
        if isinstance(line, BadLine):
            assert line.reason in BAD_LINES, line
            assert len(str(line).encode()) < 2000
            reasons[line.reason] += 1
        else:
            assert isinstance(line, CaptionLine) and line.texts
            os.fsencode(line.image)
            assert all(text.strip() == text and text.encode() for text in line.captions)
            reasons["good"] += 1
    assert before <= content.count(b"\n") + 1
    try:
        load_dataset(path, "zh")
    except (CorpusError, UsageError) as error:
        str(error).encode()
    return reasons


# -- pictures ----------------------------------------------------------------------------------------------------

IMAGE_REASONS = {
    "empty file", "not an image", "unsupported format", "truncated", "corrupt", "too large", "out of memory"
}  # fmt: skip
MEGAPIXELS = 4.0
SPECS = (PixelSpec(32), PixelSpec(40, "crop", "bicubic"))


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a dog" * 20
    return exif.tobytes()


def picture_seeds() -> dict[str, list[bytes]]:
    """Format -> small valid files that use its features."""
    picture = draw("red", "ring", (60, 44))
    clear, grey = picture.convert("RGBA"), picture.convert("L")
    clear.putalpha(grey)
    frames = {"save_all": True, "append_images": [draw("blue", "cross", (60, 44))], "duration": 40}
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 255)
    return {
        "JPEG": [
            encoded(picture, "JPEG", exif=_exif(), quality=70),
            encoded(picture, "JPEG", progressive=True, subsampling=0, comment=b"x" * 50),
            encoded(picture.convert("CMYK"), "JPEG"),
            encoded(grey, "JPEG", restart_marker_rows=1),
            encoded(picture, "MPO", save_all=True, append_images=[picture]),
        ],
        "PNG": [
            encoded(clear, "PNG", exif=_exif()),
            encoded(picture.convert("P"), "PNG", transparency=3, bits=8),
            encoded(deep, "PNG"),
            encoded(picture.convert("1"), "PNG"),
            encoded(picture, "PNG", **frames),
        ],
        "GIF": [
            encoded(picture, "GIF"),
            encoded(picture.convert("P"), "GIF", transparency=2, comment=b"x" * 300, **frames),
        ],
        "WEBP": [
            encoded(picture, "WEBP", exif=_exif()),
            encoded(clear, "WEBP", lossless=True),
            encoded(clear, "WEBP", **frames),
        ],
        "BMP": [
            encoded(picture, "BMP"),
            encoded(picture.convert("P"), "BMP"),
            encoded(picture.convert("1"), "BMP"),
            encoded(clear, "DIB"),
        ],
        "TIFF": [
            encoded(picture, "TIFF", exif=_exif()),
            encoded(clear, "TIFF", compression="tiff_lzw"),
            encoded(picture, "TIFF", compression="tiff_adobe_deflate"),
            encoded(picture, "TIFF", compression="jpeg"),
            encoded(picture.convert("1"), "TIFF", compression="group4"),
            encoded(picture.convert("LAB"), "TIFF"),
            encoded(deep, "TIFF"),
            encoded(grey.convert("F"), "TIFF", compression="packbits"),
        ],
        "other": [
            *(encoded(clear, kind) for kind in ("AVIF", "JPEG2000") if kind in Image.SAVE),
            encoded(clear, "ICO", sizes=[(32, 32)]),
            encoded(picture, "PPM"),
            encoded(deep, "PPM"),
        ],
    }


def mutated_picture(data: bytes, rng: random.Random) -> bytes:
    """Mutated; often below the checksums of PNG, which would otherwise end every case at once."""
    if not data.startswith(b"\x89PNG") or rng.random() < 0.3:
        return mutated(data, rng)
    chunks, at = [], 8
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    for _ in range(rng.randint(1, 2)):
        place = rng.randrange(len(chunks))
        kind, body = chunks[place]
        if kind == b"IDAT" and rng.random() < 0.6:
            with contextlib.suppress(zlib.error):  # it may be mutated already
                body = zlib.compress(mutated(zlib.decompress(body), rng), 1)
        else:
            body = mutated(body, rng) if body else rng.randbytes(9)
        chunks[place] = kind, body
    if rng.random() < 0.2:
        rng.shuffle(chunks)
    return data[:8] + b"".join(png_chunk(kind, body) for kind, body in chunks)


def check_picture(data: bytes, spec: PixelSpec) -> str:
    """Decodes or is refused for a reason that is known; returns it, "" for decoded."""
    try:
        image = decode(data, spec, max_megapixels=MEGAPIXELS)
    except ImageError as error:
        assert error.reason in IMAGE_REASONS, error
        str(error).encode()
        return error.reason
    assert isinstance(image, DecodedImage) and image.pixels.dtype == np.uint8
    assert image.pixels.shape == (spec.size, spec.size, 3) and 0 < image.width * image.height <= MEGAPIXELS * 1e6
    return ""


def picture_cases(kind: str, seed: int) -> Iterator[tuple[str, bytes, PixelSpec]]:
    """Without end: (name of the case, bytes, specification)."""
    seeds = picture_seeds()[kind]
    number = 0
    while True:
        rng = random.Random(f"{kind} {seed} {number}")
        yield f"{kind} {seed} {number}", mutated_picture(rng.choice(seeds), rng), rng.choice(SPECS)
        number += 1


def fuzz_pictures(kind: str, cases: int, seed: int, note: Path, seconds: float = float("inf")) -> dict[str, Any]:
    """Decode mutated pictures here, with the limits of a decoding process; what became of them."""
    settle_in()
    for data in picture_seeds()[kind]:
        assert check_picture(data, SPECS[0]) == "", kind  # what is mutated was good
    cap_memory(_memory(MEGAPIXELS))
    before = peak_mb()
    reasons: Counter[str] = Counter()
    slowest, slowest_case = 0.0, ""
    started = time.monotonic()
    with note.open("wb", buffering=0) as at_work:
        for number, (name, data, spec) in enumerate(picture_cases(kind, seed)):
            if number == cases or time.monotonic() - started > seconds:
                break
            os.pwrite(at_work.fileno(), f"{name:<40}".encode(), 0)
            begun = time.process_time()
            reasons[check_picture(data, spec)] += 1
            if (took := time.process_time() - begun) > slowest:
                slowest, slowest_case = took, name
    grown = peak_mb() - before
    return {"reasons": dict(reasons), "slowest": slowest, "slowest_case": slowest_case, "grown_mb": grown}


def peak_mb() -> float:
    """The most memory this process has had so far (`getrusage` may still speak of the one it was forked from)."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fuzz_pictures_apart(
    kind: str, cases: int, seed: int, folder: Path, *, seconds: float = float("inf"), timeout: float = 60
) -> dict[str, Any]:
    """`fuzz_pictures` in a process of its own.

    Raises:
        AssertionError: the process crashed, failed or hung; names the case.
    """
    note = folder / f"{kind}.case"
    command = [sys.executable, "-m", "tests.support.fuzzing", kind, str(cases), str(seed), str(note), str(seconds)]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"case {note.read_text()} hangs") from None
    if done.returncode:
        case = note.read_text() if note.exists() else "none"
        raise AssertionError(f"case {case} ended the process with {done.returncode}: {done.stdout[-2000:]}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def hungry_decode(data: bytes, spec: PixelSpec, *, max_megapixels: float) -> DecodedImage:
    """A decoder for the pool that takes all the memory it gets for a file that says so; importable by name."""
    if data == b"hungry":
        hoard = []
        while True:
            hoard.append(bytearray(64 << 20))
    return decode(data, spec, max_megapixels=max_megapixels)


def main() -> None:
    import traceback

    kind, cases, seed, note, seconds = sys.argv[1:]
    try:
        print(json.dumps(fuzz_pictures(kind, int(cases), int(seed), Path(note), float(seconds))))
    except BaseException:
        print(traceback.format_exc())  # stderr was silenced, as in a decoding process
        sys.stdout.flush()
        os._exit(1)


if __name__ == "__main__":
    main()
