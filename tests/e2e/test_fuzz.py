"""Damaged and hostile files: no exception but the documented ones, no hang, no crash, no flood of memory."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from brivl_search.corpus import decode_pool
from brivl_search.corpus.captions import MAX_LINE_BYTES, BadLine, CaptionLine, read_captions
from brivl_search.corpus.decode_pool import decode_all
from brivl_search.corpus.images import PixelSpec
from brivl_search.corpus.walk import ImageFile
from tests.support import pictures
from tests.support.folders import REPO
from tests.support.fuzzing import (
    BAD_LINES,
    IMAGE_REASONS,
    caption_file,
    check_captions,
    fuzz_pictures_apart,
    hungry_decode,
    picture_seeds,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory")


@pytest.mark.parametrize("seed", range(2))
def test_caption_files(tmp_path: Path, seed: int) -> None:
    reasons: Counter[str] = Counter()
    for number in range(2000):
        rng = random.Random(f"{seed} {number}")
        content = caption_file(rng)
        started = time.process_time()
        try:
            reasons += check_captions(tmp_path / "captions.jsonl", content)
        except Exception as error:
            raise AssertionError(f"case {seed} {number}: {content[:300]!r}") from error
        assert time.process_time() - started < 5, (seed, number)
    assert reasons["good"] > 4000 and BAD_LINES - reasons.keys() <= {"line too long"}, reasons


def test_lines_at_the_limit(tmp_path: Path) -> None:
    head = b'{"image": "a.jpg", "zh": "'
    fits = head + b"x" * (MAX_LINE_BYTES - len(head) - 3) + b'"}\n'
    good = head + b'y"}\n'
    longer = fits.replace(b"x", b"xx", 1)
    content = [
        fits,
        longer,
        good,
        fits * 2,
        good,
        longer.replace(b"\n", b"") * 3 + b"\n",
        b" " * 9_000_000,
        b"\n",
        good,
    ]
    path = tmp_path / "captions.jsonl"
    path.write_bytes(b"".join(content))
    lines = list(read_captions(path))
    assert [(line.line, getattr(line, "reason", "good")) for line in lines] == [
        (1, "good"), (2, "line too long"), (3, "good"), (4, "good"), (5, "good"), (6, "good"), (7, "line too long"),
        (9, "good"),
    ]  # fmt: skip
    path.write_bytes(longer.replace(b"\n", b" "))  # the last line, and no end of it
    assert [line.reason for line in read_captions(path) if isinstance(line, BadLine)] == ["line too long"]


HOSTILE = """
import sys
from brivl_search.corpus.captions import BadLine, read_captions
from tests.support.fuzzing import peak_mb
before = peak_mb()
for line in read_captions(sys.argv[1]):
    print(line.reason if isinstance(line, BadLine) else "good")
print(int(peak_mb() - before))
"""


@linux
def test_hostile_lines_take_little_memory(tmp_path: Path) -> None:
    """Lines of 200 MB are passed over, and those that are read cannot swell without bound."""
    path = tmp_path / "captions.jsonl"
    nothing = b"{}," * ((MAX_LINE_BYTES - 100) // 3)  # the most objects for a byte
    with path.open("wb") as file:
        file.write(b'{"image": "a.jpg", "zh": "x"}\n{"image": "a.jpg", "zh": "')
        file.seek(200 << 20, 1)
        file.write(b'"}\n' + b"[" * (50 << 20) + b"\n")
        for _ in range(3):
            file.write(b'{"image": "a.jpg", "zh": [' + nothing + b"{}]}\n")
        file.write(b'{"image": "a.jpg", "zh": "x"}\n')
    command = [sys.executable, "-c", HOSTILE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPO)
    *reasons, grown = done.stdout.splitlines()
    wrong = "`zh` is not a string or a list of strings"
    assert reasons == ["good", "line too long", "line too long", wrong, wrong, wrong, "good"], done
    assert int(grown) < 300


@pytest.mark.parametrize("kind", list(picture_seeds()))
def test_pictures(tmp_path: Path, kind: str) -> None:
    report = fuzz_pictures_apart(kind, 800, 0, tmp_path)
    reasons = report["reasons"]
    assert sum(reasons.values()) == 800 and reasons.keys() <= {"", *IMAGE_REASONS}
    assert reasons[""] > 50 and reasons["corrupt"] > 50, report  # the damage is neither too coarse nor too fine
    assert report["slowest"] < 5, report
    assert report["grown_mb"] < 200, report


@linux
def test_a_file_that_eats_memory_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_pool, "_memory", lambda max_megapixels: 300 << 20)
    contents = [pictures.jpeg((20 + i, 20)) for i in range(20)]
    contents[5] = contents[6] = b"hungry"
    files = []
    for number, content in enumerate(contents):
        path = tmp_path / f"{number:02d}.jpg"
        path.write_bytes(content)
        files.append(ImageFile(str(path), len(content), 0))
    results = list(decode_all(files, PixelSpec(32), workers=1, decoder=hungry_decode))
    assert [i for i, result in enumerate(results) if result.reason] == [5, 6]
    assert {results[5].reason, results[6].reason} == {"out of memory"} and results[5].sha256
    assert [results[i].width for i in (4, 7, 19)] == [24, 27, 39]


@linux
def test_the_largest_pictures_allowed_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hungriest formats at the limit of --max-megapixels, in a worker with that limit's memory."""
    from PIL import Image

    big = Image.frombytes("L", (2000, 2000), random.Random(0).randbytes(4_000_000))
    real = decode_pool._memory
    files = []
    for name, image, options in (
        ("a.tif", big.convert("F"), {}),
        ("b.png", big.convert("I;16"), {"compress_level": 0}),
        ("c.webp", big.convert("RGBA"), {"method": 0, "quality": 1}),
        ("d.jpg", big.convert("CMYK"), {"progressive": True}),
    ):
        image.save(tmp_path / name, **options)
        files.append(ImageFile(str(tmp_path / name), (tmp_path / name).stat().st_size, 0))
    monkeypatch.setattr(decode_pool, "_memory", lambda megapixels: real(megapixels) - (480 << 20))  # not the spare
    results = list(decode_all(files, PixelSpec(32), workers=1, max_megapixels=4.0))
    assert [result.reason for result in results] == [""] * 4


def test_captions_survive_a_good_line_after_a_bad_one(tmp_path: Path) -> None:
    """Whatever one line holds, the lines around it are read."""
    path = tmp_path / "captions.jsonl"
    for number in range(300):
        rng = random.Random(number)
        bad = caption_file(rng).replace(b"\n", b" ")
        good = b'{"image": "a.jpg", "zh": "x"}'
        path.unlink(missing_ok=True)
        path.write_bytes(b"\n".join((good, bad, good)))
        lines = {line.line: line for line in read_captions(path)}
        assert isinstance(lines[1], CaptionLine) and isinstance(lines[3], CaptionLine), number
