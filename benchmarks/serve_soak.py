"""Mixed load on a running server, with `add` beside it; see `serve.py`."""

from __future__ import annotations

import io
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
THREADS = 6
SETTLED = 0.2  # of the time; memory is compared from here on


def picture(seed: int) -> bytes:
    """A JPEG that is like no other: noise in large cells."""
    from PIL import Image

    cells = Image.frombytes("RGB", (8, 8), random.Random(seed).randbytes(192))
    buffer = io.BytesIO()
    cells.resize((256, 192)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def anonymous(pid: int) -> int:
    """Bytes of memory that a process has of its own; what it maps of the index's files is not among them."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no RssAnon: this needs Linux")


def soak(pid: int, address: str, index: Path, folder: Path, seconds: float, texts: list[str]) -> dict[str, Any]:
    """Asks for everything, again and again, while photos are added and removed.

    Args:
        pid: of the server.
        address: of the server.
        index: of the server.
        folder: for pictures.
        seconds: how long.
        texts: what to ask for.

    Returns:
        Requests of each kind, errors, the server's memory in MB after `SETTLED` of the time and at the end, its growth.
    """
    import httpx

    done, errors = Counter[str](), Counter[str]()
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
            # A photo of the soak may just have been removed again, or be on its way: 404 says so.
            key = rng.choice(hits)["key"]
            check("thumbnail", client.get(f"/v1/items/{key}/thumbnail"), (200, 404))
            check("item", client.get(f"/v1/items/{key}"), (200, 404))
            check("like", client.post("/v1/search", json={"terms": [{"key": key}], "target": "images"}), (200, 404))
        if rng.random() < 0.1:
            check("picture", client.post("/v1/search", files={"image": picture(rng.randrange(200))}))
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

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(THREADS)]
    threads.append(threading.Thread(target=add))
    start = time.monotonic()
    for thread in threads:
        thread.start()
    settled: list[int] = []
    late: list[int] = []
    while (spent := time.monotonic() - start) < seconds:
        time.sleep(min(2.0, seconds / 50))
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
