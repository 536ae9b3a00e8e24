"""Mixed load on a server, with `add` beside it: does its memory stay what it is once it is warm?

    python benchmarks/serve_soak.py --minutes 10                # an index of 600 made-up pictures
    python benchmarks/serve_soak.py --minutes 10 --index DIR    # a copy of this one

Searches (words, filters, pictures, more like this), thumbnails, items, the map, uploads and removals over HTTP, and a
folder that gains a picture every few seconds. It prints the server's own memory (RssAnon) and that of its decoders as
time goes on. The warm-up is part of what is printed. Bars: no request fails; over the last 80 % of the time the memory
grows by at most 5 %. `serve.py --minutes` runs the same after its own measurements.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
THREADS = 12
SETTLED = 0.2  # of the time; memory is compared from here on


def picture(seed: int, size: tuple[int, int] = (256, 192)) -> bytes:
    """A JPEG that is like no other: noise in large cells."""
    from PIL import Image

    cells = Image.frombytes("RGB", (8, 8), random.Random(seed).randbytes(192))
    buffer = io.BytesIO()
    cells.resize(size).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def photograph(seed: int) -> bytes:
    """A JPEG as large as a camera's: of 2 to 12 megapixels, with noise, so that it has some MB."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(seed)
    side = 1400 + 300 * seed
    pixels = rng.integers(0, 255, (side // 4, side // 3, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((side * 4 // 3, side)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def make_index(folder: Path, pictures: int) -> Path:
    """An index of made-up pictures, each with two captions, by the bundled encoder; and the folder of the pictures."""
    photos = folder / "photos"
    photos.mkdir()
    words = ("dog", "cat", "boat", "tree", "red car", "old man", "snow", "beach")
    with (photos / "captions.jsonl").open("w") as lines:
        for number in range(pictures):
            name = f"{number:05d}.jpg"
            (photos / name).write_bytes(picture(number, (640, 480)))
            first, second = random.Random(number).sample(words, 2)
            captions = [f"a {first} beside a {second} {number}", f"{first}, number {number}"]
            lines.write(json.dumps({"image": name, "en": captions}) + "\n")
    command = [sys.executable, "-m", "brivl_search", "build-index", str(photos), "--index", str(folder / "index"), "-q"]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    return folder / "index"


def children(pid: int) -> list[int]:
    """Processes that a process has started, and those that they have."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *children(child)]
    return found


def anonymous(pid: int) -> int:
    """Bytes of memory that a process has of its own; what it maps of the index's files is not among them.

    0 of one that has ended: a decoder whose time is up makes way for a fresh one.
    """
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


def soak(
    pid: int,
    address: str,
    index: Path,
    folder: Path,
    seconds: float,
    texts: list[str],
    told: Callable[[float, int], None] = lambda spent, size: None,
) -> dict[str, Any]:
    """Asks for everything, again and again, while photos are added and removed.

    Args:
        pid: of the server.
        address: of the server.
        index: of the server.
        folder: for pictures.
        seconds: how long.
        texts: what to ask for.
        told: seconds since the beginning and bytes of the server's memory, again and again.

    Returns:
        Requests of each kind, errors, the server's memory in MB after `SETTLED` of the time and at the end, its growth.
    """
    import httpx

    done, errors = Counter[str](), Counter[str]()
    photos = [photograph(seed) for seed in range(8)]
    stop = threading.Event()
    lock = threading.Lock()

    def check(what: str, answer: httpx.Response, good: tuple[int, ...] = (200,)) -> httpx.Response:
        with lock:
            done[what] += 1
            if answer.status_code not in good:
                errors[f"{what}: {answer.status_code} {answer.text[:200]}"] += 1
        return answer

    def ask(number: int) -> None:
        rng = random.Random(number)
        with httpx.Client(base_url=address, timeout=60) as client:
            while not stop.is_set():
                try:
                    step(client, rng)
                except Exception as error:
                    with lock:
                        errors[f"{type(error).__name__}: {error}"] += 1

    def step(client: httpx.Client, rng: random.Random) -> None:
        text = rng.choice(texts)
        hits = check("text", client.post("/v1/search", json={"text": text, "k": 20})).json().get("hits", [])
        if rng.random() < 0.3:
            check("filter", client.post("/v1/search", json={"text": text, "filters": {"min_size": "100x100"}, "k": 5}))
        if hits and rng.random() < 0.5:
            # A photo of the soak may just have been removed again, or be on its way: 404 says so. `add` writes over
            # its own photos: until it has embedded them anew, 409 says so.
            key = rng.choice(hits)["key"]
            check("thumbnail", client.get(f"/v1/items/{key}/thumbnail"), (200, 404, 409))
            check("item", client.get(f"/v1/items/{key}"), (200, 404))
            check("like", client.post("/v1/search", json={"terms": [{"key": key}], "target": "images"}), (200, 404))
        if rng.random() < 0.1:
            check("picture", client.post("/v1/search", files={"image": picture(rng.randrange(200))}))
        if rng.random() < 0.05:
            some = [("image", picture(rng.randrange(200))) for _ in range(rng.choice((1, 4, 16)))]
            check("embed pictures", client.post("/v1/embed/image", files=some))
            labels = json.dumps({"labels": ["dog", "cat", "boat", "tree"], "k": 2})
            check("classify", client.post("/v1/classify", files=some[:4], data={"request": labels}))
        if rng.random() < 0.05:
            check("embed texts", client.post("/v1/embed/text", json={"texts": rng.sample(texts, min(200, len(texts)))}))
            check("exact", client.post("/v1/search", json={"text": text, "exact": True, "k": 500, "target": "images"}))
            check("dedupe", client.post("/v1/search", json={"text": text, "dedupe": True, "k": 50}))
            fields = {"filters": {"min_size": f"{rng.randrange(300)}"}, "k": 100}
            check("another filter", client.post("/v1/search", json={"text": text, **fields}))
        if hits and rng.random() < 0.1:
            check("file", client.get(f"/v1/items/{rng.choice(hits)['key']}/image"), (200, 404, 409))
        if rng.random() < 0.05:
            photo = photos[rng.randrange(len(photos))]
            check("photo", client.post("/v1/search", files={"image": photo}))
            asked = {"terms": [{"base64": base64.b64encode(photo).decode()}]}
            check("photo in base64", client.post("/v1/search", json=asked))
        if rng.random() < 0.02:
            check("map", client.get("/v1/map"))
            check("metrics", client.get("/metrics"))
        if rng.random() < 0.02:
            # 409: the command line is just writing.
            answer = check("upload", client.post("/v1/items", files={"image": picture(rng.randrange(40))}), (200, 409))
            if answer.status_code == 200 and answer.json()["keys"]:
                check("delete", client.delete(f"/v1/items/{answer.json()['keys'][0]}"), (200, 404, 409))

    def add() -> None:
        """The command line beside the server: a folder that gains a picture each time, and a removal now and then."""
        more = folder / "added"
        more.mkdir()
        number = 0
        while not stop.is_set():
            (more / f"{number % 50}.jpg").write_bytes(picture(1000 + number))
            command = [sys.executable, "-m", "brivl_search", "add", str(more), "--index", str(index), "-q"]
            ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
            with lock:
                done["add"] += 1
                if ran.returncode and "another build is writing" not in ran.stderr:
                    errors[f"add: {ran.stderr[-300:]}"] += 1
            number += 1
            stop.wait(2)

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(THREADS)]
    threads.append(threading.Thread(target=add, daemon=True))
    start = time.monotonic()
    for thread in threads:
        thread.start()
    settled: list[int] = []
    late: list[int] = []
    while (spent := time.monotonic() - start) < seconds:
        time.sleep(min(2.0, seconds / 50))
        told(spent, anonymous(pid))
        if SETTLED * seconds <= spent < 2 * SETTLED * seconds:
            settled.append(anonymous(pid))
        elif spent > (1 - SETTLED) * seconds:
            late.append(anonymous(pid))
    stop.set()
    for thread in threads:
        thread.join()
    before, after = (sum(some) / len(some) for some in (settled, late))
    return {
        "requests": dict(done),
        "errors": dict(errors),
        "minutes": round(seconds / 60, 2),
        "settled_mb": round(before / 1e6, 1),
        "end_mb": round(after / 1e6, 1),
        "growth": round(after / before - 1, 4),
    }


def main() -> int:
    from serve import our_server, our_server_of_a_copy, texts_of

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--minutes", type=float, default=10)
    args = parser.parse_args()
    last = -60.0

    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        if args.index is None:
            index = make_index(folder, args.pictures)
            child, address = stack.enter_context(our_server(index, "--upload-dir", str(folder / "uploads")))
        else:
            index = folder / "copy"
            child, address, _ = stack.enter_context(our_server_of_a_copy(args.index, folder))
        print(f"{'s':>6}{'server MB':>11}{'decoders MB':>13}")

        def told(spent: float, size: int) -> None:
            nonlocal last
            if spent - last >= min(20.0, 3 * args.minutes):
                last = spent
                beside = sum(anonymous(one) for one in children(child.pid))
                print(f"{spent:6.0f}{size / 1e6:11.1f}{beside / 1e6:13.1f}", flush=True)

        told(0, anonymous(child.pid))
        result = soak(child.pid, address, index, folder, 60 * args.minutes, texts_of(index), told)
    print(json.dumps(result))
    ok = not result["errors"] and result["growth"] <= 0.05
    print("every bar is met" if ok else "a bar is missed", file=sys.stderr)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
