"""`brivl-search serve` under load: text queries by 1, 8 and 64 clients at once, made by wrk (apt-get install wrk).

    python benchmarks/serve.py --index DIR              # an index with captions, whose texts are what is asked
    python benchmarks/serve.py                          # 6,000 made-up rows with the bundled encoder
    python benchmarks/serve.py --index DIR --minutes 10 # then mixed load with `add` beside it: errors, memory

Beside it, in turns: the same engine called in a process of its own, a query at a time; and a minimal Flask server
(pip install flask) that holds the same encoder and the same vectors in a FAISS IndexFlatIP, as
clip-retrieval's back end does. Each turn lasts `--seconds`; the median of `--rounds` turns counts.

Bars: the server answers at least 0.8 of the queries/s of the engine in process; in the mixed load no request fails and
memory grows by at most 5 %.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from serve_soak import soak

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

CLIENTS, BAR, K = (1, 8, 64), 0.8, 10

WRK = """
local bodies, at = {}, 0
for line in io.lines(os.getenv("BODIES")) do bodies[#bodies + 1] = line end
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
request = function()
  at = at % #bodies + 1
  return wrk.format(nil, nil, nil, bodies[at])
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests": %d, "seconds": %f, "failed": %d, "p50": %f, "p95": %f, "p99": %f}\\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3))
end
"""

# The engine in process, told by a line on stdin to run for so many seconds.
IN_PROCESS = """
import json, sys, time
from pathlib import Path
from brivl_search.search.engine import Engine, SearchOptions
index, bodies, k = sys.argv[1], [json.loads(line)["text"] for line in open(sys.argv[2])], int(sys.argv[3])
engine = Engine(Path(index), stays=True)
engine.encoder.warm_up()
options, at = SearchOptions(k), 0
for text in bodies[:50]:
    engine.by_text(text, options)
print("ready", flush=True)
for line in sys.stdin:
    seconds, times = float(line), []
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        begun = time.perf_counter()
        engine.by_text(bodies[at % len(bodies)], options)
        times.append(time.perf_counter() - begun)
        at += 1
    times.sort()
    spent = time.perf_counter() - start
    p = lambda q: 1000 * times[int(q * (len(times) - 1))]
    print(json.dumps({"qps": len(times) / spent, "p50": p(.5), "p95": p(.95), "p99": p(.99), "failed": 0}), flush=True)
"""

# What one writes without this project: Flask, the encoder, a flat FAISS index of the same vectors, records in a list.
FLASK = """
import sys, threading
from pathlib import Path
import faiss, numpy as np
from flask import Flask, jsonify, request
from brivl_search.encoders import load_encoder
from brivl_search.index import IndexReader
with IndexReader.open(Path(sys.argv[1])) as reader:
    encoder = load_encoder(reader.info.encoder.name)
    vectors = np.concatenate([block.astype(np.float32) for block, *_ in reader.vectors("image")])
    records = [record for *_, record in reader.records("image")]
index = faiss.IndexFlatIP(vectors.shape[1])
index.add(vectors)
encoder.warm_up()
encoder.encode_texts(["warm"])
app = Flask("peer")
@app.post("/search")
def search():
    asked = request.get_json()
    scores, rows = index.search(encoder.encode_texts([asked["text"]]), asked["k"])
    hits = zip(scores[0].tolist(), rows[0].tolist())
    return jsonify([{"score": score, **records[row]} for score, row in hits if row >= 0])
import logging
logging.getLogger("werkzeug").setLevel(logging.ERROR)
from werkzeug.serving import make_server
server = make_server("127.0.0.1", 0, app, threaded=True)
print(f"http://127.0.0.1:{server.server_port}/", flush=True)
server.serve_forever()
"""


def texts_of(index: Path) -> list[str]:
    """Captions of the index, at most 4,000 different ones; made-up words where it has none."""
    from brivl_search.index import IndexReader

    with IndexReader.open(index) as reader:
        found = dict.fromkeys(str(record.get("text")) for *_, record in reader.records("text"))
    texts = list(found)[:: max(1, len(found) // 4000)] if found else [f"a dog number {n} on grass" for n in range(2000)]
    return texts[:4000]


@contextmanager
def process(command: list[str], pattern: str, *, stream: str = "stdout") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that has said what `pattern` is looked for in, and what was found; ended at the end."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, stream: subprocess.PIPE}
    child = subprocess.Popen(
        command, cwd=REPOSITORY, text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, **pipes
    )
    try:
        for line in getattr(child, stream):
            if found := re.search(pattern, line):
                yield child, found[0]
                return
        raise SystemExit(f"{command[:4]} ended with {child.wait()} before it was ready")
    finally:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()


@contextmanager
def our_server(index: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`brivl-search serve` on a free port, ready; its process and address."""
    import urllib.error
    import urllib.request

    command = [sys.executable, "-m", "brivl_search", "serve", "--index", str(index), "--port", "0", *more]
    # Its log goes where nobody has to read it: a pipe that is full would stop the server.
    with tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen(command, cwd=REPOSITORY, stderr=log, text=True)
        try:
            deadline = time.monotonic() + 120
            address = None
            while time.monotonic() < deadline and child.poll() is None:
                log.seek(0)
                if found := re.search(r"http://127\.0\.0\.1:\d+", log.read()):
                    address = found[0]
                    try:
                        urllib.request.urlopen(address + "/readyz", timeout=5).close()
                        break
                    except urllib.error.URLError:
                        pass
                time.sleep(0.2)
            else:
                raise SystemExit("the server did not become ready")
            log.seek(0, os.SEEK_END)
            assert address is not None
            yield child, address
        finally:
            child.terminate()
            child.wait(30)


def wrk(address: str, clients: int, seconds: float, script: Path, bodies: Path) -> dict[str, float]:
    """queries/s and latencies in ms of so many clients, each with one request under way."""
    command = [
        "wrk",
        "-t",
        "1",
        "-c",
        str(clients),
        "-d",
        f"{seconds:g}s",
        "--timeout",
        "30s",
        "-s",
        str(script),
        address,
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "BODIES": str(bodies)}, check=True
    )
    found = re.search(r"RESULT (\{.*\})", done.stdout)
    assert found, done.stdout + done.stderr
    result: dict[str, float] = json.loads(found[1])
    return {"qps": result["requests"] / result["seconds"], **{n: result[n] for n in ("p50", "p95", "p99", "failed")}}


def medians(turns: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(turn[name] for turn in turns) for name in turns[0]} | {
        "failed": sum(turn["failed"] for turn in turns)
    }


def load(index: Path, seconds: float, rounds: int) -> dict[str, dict[str, float]]:
    """Who (and how many clients) → medians over the rounds."""
    turns: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        script, bodies = Path(temporary) / "wrk.lua", Path(temporary) / "bodies.jsonl"
        script.write_text(WRK)
        lines = [json.dumps({"text": text, "k": K}, ensure_ascii=False) for text in texts_of(index)]
        bodies.write_text("\n".join(lines) + "\n")
        _, ours = stack.enter_context(our_server(index))
        command = [sys.executable, "-c", IN_PROCESS, str(index), str(bodies), str(K)]
        engine, _ = stack.enter_context(process(command, "ready"))
        flask = None
        if importable("flask"):
            _, flask = stack.enter_context(process([sys.executable, "-c", FLASK, str(index)], r"http://\S+"))
        else:
            print("no Flask here (pip install flask): measured without that peer", file=sys.stderr)
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            assert engine.stdin is not None and engine.stdout is not None
            engine.stdin.write(f"{seconds}\n")
            engine.stdin.flush()
            turns.setdefault("engine in process", []).append(json.loads(engine.stdout.readline()))
            for clients in CLIENTS:
                found = wrk(ours + "/v1/search", clients, seconds, script, bodies)
                turns.setdefault(f"serve, {clients}", []).append(found)
                if flask:
                    found = wrk(flask + "search", clients, seconds, script, bodies)
                    turns.setdefault(f"Flask + FAISS, {clients}", []).append(found)
    return {name: medians(some) for name, some in turns.items()}


def importable(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=0, help="of mixed load afterwards")
    parser.add_argument("--only-mixed", action="store_true", help="leave the rest out")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if not args.only_mixed and shutil.which("wrk") is None:
        raise SystemExit("this needs wrk: apt-get install wrk")
    ok, result = True, {}
    with tempfile.TemporaryDirectory() as temporary:
        index = args.index
        if index is None:
            from cold_start import make_index

            index = Path(temporary) / "index"
            make_index(index, 6000)
        if not args.only_mixed:
            table = load(index, args.seconds, args.rounds)
            result["load"] = table
            alone = table["engine in process"]["qps"]
            print(f"{'':24}{'queries/s':>10}{'of engine':>10}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'failed':>8}")
            for name, row in table.items():
                share = row["qps"] / alone
                print(
                    f"{name:24}{row['qps']:10.1f}{share:10.2f}{row['p50']:9.1f}{row['p95']:9.1f}{row['p99']:9.1f}",
                    end="",
                )
                print(f"{row['failed']:8.0f}")
            ok &= all(table[f"serve, {clients}"]["qps"] >= BAR * alone for clients in CLIENTS)
            ok &= not any(table[f"serve, {clients}"]["failed"] for clients in CLIENTS)
        if args.minutes:
            with our_server_of_a_copy(index, Path(temporary)) as (child, address, copy):
                mixed = soak(child.pid, address, copy, Path(temporary), 60 * args.minutes, texts_of(index))
            result["mixed"] = mixed
            print(mixed)
            ok &= not mixed["errors"] and mixed["growth"] <= 0.05
    print(f"load average {os.getloadavg()[0]:.1f}; {'every bar is met' if ok else 'a bar is missed'}", file=sys.stderr)
    if args.json:
        print(json.dumps({**result, "loadavg": os.getloadavg(), "ok": bool(ok)}))
    return 0 if ok else 1


@contextmanager
def our_server_of_a_copy(index: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """The mixed load changes the index, so it gets one of its own."""
    copy = folder / "copy"
    shutil.copytree(index, copy)
    with our_server(copy, "--upload-dir", str(folder / "uploads")) as (child, address):
        yield child, address, copy


if __name__ == "__main__":
    sys.exit(main())
