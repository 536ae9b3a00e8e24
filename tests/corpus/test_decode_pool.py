"""brivl_search.corpus.decode_pool: order, honesty about bad files, and survival of crashes, hangs and signals."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from brivl_search.corpus import decode_pool
from brivl_search.corpus.decode_pool import Decoded, decode_all
from brivl_search.corpus.images import PixelSpec, load_pixels
from brivl_search.corpus.walk import ImageFile, scan
from brivl_search.errors import CorpusError
from tests.support import pictures

SPEC = PixelSpec(32)
ROOT = Path(decode_pool.__file__).parents[2]


def image_file(path: Path) -> ImageFile:
    return ImageFile(str(path), path.stat().st_size, path.stat().st_mtime_ns)


def files_of(folder: Path, contents: list[bytes]) -> list[ImageFile]:
    for i, content in enumerate(contents):
        (folder / f"{i:03d}.jpg").write_bytes(content)
    return [image_file(folder / f"{i:03d}.jpg") for i in range(len(contents))]


def no_workers() -> bool:
    return not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 2])
def test_order_hashes_sizes_and_reasons(tmp_path: Path, workers: int) -> None:
    pictures.write_corpus(tmp_path, 40, size=(48, 40))
    expected = pictures.write_bad_files(tmp_path / "bad")
    files = [image_file(path) for path in sorted((tmp_path / "images").iterdir())]
    for i, name in enumerate(expected):
        files.insert(3 * i, image_file(tmp_path / "bad" / name))
    files.append(ImageFile(str(tmp_path / "vanished.jpg"), 1, 1))
    expected["vanished.jpg"] = "file vanished"
    results = list(decode_all(iter(files), SPEC, workers=workers))
    assert [result.file for result in results] == files
    for result in results:
        name = os.path.basename(result.file.path)
        assert result.reason == expected.get(name, ""), (name, result.detail)
        if name != "vanished.jpg":
            assert result.sha256 == hashlib.sha256(Path(result.file.path).read_bytes()).hexdigest()
        if result.reason:
            assert result.pixels is None
        else:
            assert result.pixels is not None and result.pixels.flags.writeable
            assert np.array_equal(result.pixels, load_pixels(result.file.path, SPEC))
            assert (result.width, result.height) == (48, 40)
    assert no_workers()


@pytest.mark.parametrize("workers", [0, 1])
def test_known_contents_are_not_decoded(tmp_path: Path, workers: int) -> None:
    files = files_of(tmp_path, [pictures.jpeg(colour=colour) for colour in ("red", "blue", "green")])
    digest = hashlib.sha256(Path(files[1].path).read_bytes()).hexdigest()
    sizes = {files[1].size: {digest}}
    results = list(decode_all(files, SPEC, workers=workers, known_hashes=lambda file: sizes.get(file.size, ())))
    assert [result.known for result in results] == [False, True, False]
    assert [result.pixels is None for result in results] == [False, True, False]
    assert results[1].sha256 == digest and not results[1].reason
    assert np.array_equal(results[2].pixels, load_pixels(files[2].path, SPEC))


def test_limits_and_nothing_at_all(tmp_path: Path) -> None:
    assert list(decode_all([], SPEC, workers=2)) == []
    files = files_of(tmp_path, [pictures.jpeg((200, 200)), pictures.jpeg((20, 20))])
    results = list(decode_all(files, SPEC, workers=1, max_megapixels=0.01))
    assert [result.reason for result in results] == ["too large", ""]
    results = list(decode_all(files, SPEC, workers=0, max_bytes=files[1].size))
    assert [result.reason for result in results] == ["too large", ""]
    for wrong in ({"workers": -1}, {"workers": 1, "timeout_s": 0}, {"workers": 1, "ahead": 0}):
        with pytest.raises(ValueError):
            decode_all(files, SPEC, **wrong)


def test_crashes_and_hangs_cost_only_the_guilty(tmp_path: Path) -> None:
    contents = [pictures.jpeg((20 + i, 20)) for i in range(40)]
    contents[3], contents[4], contents[20], contents[37] = pictures.CRASH, pictures.EXIT, pictures.HANG, pictures.RAISE
    files = files_of(tmp_path, contents)
    started = time.monotonic()
    results = list(decode_all(iter(files), SPEC, workers=2, timeout_s=1.5, decoder=pictures.naughty_decode))
    assert [result.file for result in results] == files
    bad = {i: (result.reason, result.detail) for i, result in enumerate(results) if result.reason}
    assert bad.keys() == {3, 4, 20, 37}
    assert bad[3] == ("decoder crashed", "SIGSEGV") and bad[4] == ("decoder crashed", "exit code 7")
    assert bad[20] == ("decoding timed out", "after 1.5 s")
    assert bad[37][0] == "decoder crashed" and "a bug in a decoder" in bad[37][1]
    assert [result.width for i, result in enumerate(results) if i not in bad] == [
        20 + i for i in range(40) if i not in bad
    ]
    assert time.monotonic() - started < 25 and no_workers()


def test_idle_workers_killed_from_outside(tmp_path: Path) -> None:
    """As the kernel's out-of-memory killer does it."""
    files = files_of(tmp_path, [pictures.jpeg((20, 20))] * 60)
    stream = decode_all(iter(files), SPEC, workers=2, ahead=32)
    results = [next(stream) for _ in range(10)]
    time.sleep(0.3)  # they have filled the window and wait
    for child in multiprocessing.active_children():
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
    results += stream
    assert len(results) == 60 and not any(result.reason for result in results)


def test_workers_that_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of(tmp_path, [pictures.jpeg((20, 20))])
    monkeypatch.setattr(decode_pool, "settle_in", os.abort)
    with pytest.raises(CorpusError, match="workers = 0"):
        list(decode_all(files, SPEC, workers=1))
    assert no_workers()


def test_only_so_many_files_ahead(tmp_path: Path) -> None:
    files = files_of(tmp_path, [pictures.jpeg((20, 20))] * 100)
    taken = 0

    def counted():  # type: ignore[no-untyped-def]
        nonlocal taken
        for file in files:
            taken += 1
            yield file

    stream = decode_all(counted(), SPEC, workers=1, ahead=32)
    assert taken == 0
    next(stream)
    assert taken == 32
    stream.close()  # type: ignore[attr-defined]
    assert no_workers()


def test_from_a_thread_that_ends(tmp_path: Path) -> None:
    files = files_of(tmp_path, [pictures.jpeg((20, 20))] * 40)
    stream = decode_all(iter(files), SPEC, workers=1, ahead=16)
    results: list[Decoded] = []
    thread = threading.Thread(target=lambda: results.append(next(stream)))
    thread.start()
    thread.join()
    results += stream
    assert len(results) == 40 and not any(result.reason for result in results)


SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children inherit that it is ignored
sys.path.insert(0, {root!r})
from brivl_search.corpus.decode_pool import decode_all
from brivl_search.corpus.images import PixelSpec
from brivl_search.corpus.walk import scan
files = scan([{folder!r}]).images
for i, result in enumerate(decode_all(iter(files), PixelSpec(32), workers=1, ahead=16)):
    print(i, result.reason, flush=True)
    {then}
"""


@pytest.mark.parametrize("how", ["script", "stdin", "-c", "-m"])
def test_however_python_was_started(tmp_path: Path, how: str) -> None:
    """Without a main guard, and whatever __main__ is: workers do not run it again."""
    (tmp_path / "images").mkdir()
    files_of(tmp_path / "images", [pictures.jpeg((20, 20))] * 3)
    code = SCRIPT.format(root=str(ROOT), folder=str(tmp_path / "images"), then="pass")
    (tmp_path / "job.py").write_text(code)
    arguments = {"script": ["job.py"], "stdin": ["-"], "-c": ["-c", code], "-m": ["-m", "job"]}[how]
    done = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, input=code, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0 and done.stdout.split() == ["0", "1", "2"] and done.stderr == "", done.stderr


LATE = """
import sys
sys.path.insert(0, {root!r})
from brivl_search.corpus.light_spawn import light_context

class Gone:  # stands for a semaphore or a pipe of a parent that has ended
    def __reduce__(self):
        return {raises}

process = light_context().Process(target=print, args=(Gone(),))
process.start()
process.join()
print(process.exitcode)
"""


@pytest.mark.parametrize(
    ("raises", "said"),
    [
        ("open, ('/nowhere/at/all',)", ""),
        ("next, (iter(()),)", "StopIteration"),  # any other failure is told
    ],
)
def test_a_worker_that_starts_too_late_says_nothing(raises: str, said: str) -> None:
    code = LATE.format(root=str(ROOT), raises=raises)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["1"] and done.stderr.strip().endswith(said), done
    assert bool(done.stderr) == bool(said), done


def children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in listed for child in path.read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_orphans(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "images").mkdir()
    files_of(tmp_path / "images", [pictures.jpeg((20, 20))] * 64)
    code = SCRIPT.format(root=str(ROOT), folder=str(tmp_path / "images"), then="__import__('time').sleep(60)")
    # a group of its own, so that SIGINT reaches the workers too, as Ctrl-C does
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith("0")
        children = children_of(process.pid)
        assert children
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.kill()
        errors = process.stderr.read() if number == signal.SIGINT else ""
        process.wait(20)
    deadline = time.monotonic() + 10
    while any(map(alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, children))
    if number == signal.SIGINT:
        assert errors.count("Traceback") == 1 and "KeyboardInterrupt" in errors  # the parent's own, nobody else's


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_a_worker_that_hangs_outlives_a_killed_parent_only_for_a_while(tmp_path: Path) -> None:
    (tmp_path / "000.jpg").write_bytes(pictures.HANG)
    code = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}]
from tests.support import pictures
from brivl_search.corpus import decode_pool
from brivl_search.corpus.walk import scan
decode_pool._alarm_s = lambda timeout_s: 1
print("ready", flush=True)
files = scan([{str(tmp_path)!r}]).images
list(decode_pool.decode_all(files, decode_pool.PixelSpec(8), workers=1, decoder=pictures.naughty_decode))
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        children: list[int] = []
        deadline = time.monotonic() + 10
        while len(children) < 2 and time.monotonic() < deadline:  # the worker and the resource tracker
            time.sleep(0.05)
            children = children_of(process.pid)
        time.sleep(0.6)
        process.kill()
    deadline = time.monotonic() + 10
    while any(map(alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert children and not any(map(alive, children))


@pytest.mark.shared
def test_real_photos_agree_with_plain_pillow() -> None:
    folder = ROOT.parent / "shared" / "data" / "flickr8k-cn" / "images"
    if not folder.is_dir():
        pytest.skip("needs shared/")
    files = scan([folder]).images[:32]
    from PIL import Image

    for result in decode_all(files, PixelSpec(), workers=1):
        plain = Image.open(result.file.path).convert("RGB")
        assert (result.width, result.height) == plain.size and result.pixels is not None
        expected = np.asarray(plain.resize((224, 224), Image.Resampling.BILINEAR))
        assert np.abs(result.pixels.astype(int) - expected).max() <= 2
