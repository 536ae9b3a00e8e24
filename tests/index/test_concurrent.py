"""Readers beside a writer: every answer is of one whole generation, never of half of one."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from brivl_search.index import IndexReader, verify

DIM, ROUNDS = 16, 40

WRITER = """
import sys
import numpy as np
from pathlib import Path
from brivl_search.index import IndexWriter, Item

directory, dim, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(0)
for round in range(rounds):
    with IndexWriter(directory, encoder_name="e", fingerprint="f", dim=dim, shard_rows=30) as w:
        vectors = rng.standard_normal((10, dim)).astype(np.float32)
        names = [f"{round:03d}-{n}" for n in range(10)]
        w.stage_vectors("image", names, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        for name in names:
            w.put("image", Item(name, name, record={"round": round}))
        for n in range(10):
            w.remove("image", f"{round - 5:03d}-{n}")  # a round lives for five generations
        w.commit(compact=round % 7 == 6)
"""


def rounds_of(reader: IndexReader) -> set[int]:
    """The rounds whose rows a search over everything returns, after checking that each is there whole."""
    query = np.random.default_rng(1).standard_normal((1, DIM)).astype(np.float32)
    found = reader.search("image", query, 1000)
    places = [(int(s), int(r)) for s, r in zip(found.shards[0], found.rows[0], strict=True) if r >= 0]
    rounds = [reader.record("image", *place)["round"] for place in places]
    assert all(rounds.count(one) == 10 for one in rounds)
    return set(rounds)


def test_readers_see_whole_generations(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path), str(DIM), str(ROUNDS)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    seen: set[int] = set()
    failures: list[BaseException] = []

    def read() -> None:
        try:
            reader: IndexReader | None = None
            while process.poll() is None:
                if not (tmp_path / "shards").is_dir() or not any((tmp_path / "shards").glob("image-*")):
                    continue
                try:
                    if reader is None or reader.stale():
                        reader = IndexReader.open(tmp_path)
                except Exception as error:
                    if "has not finished" in str(error) or "no index at" in str(error):
                        continue
                    raise
                last = reader.info.generation - 1  # round k makes generation k + 1
                assert reader.damage == ()
                assert rounds_of(reader) == set(range(max(0, last - 4), last + 1)), last
                seen.add(last)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert process.wait() == 0, process.stderr.read() if process.stderr else ""
    assert not failures, failures
    assert len(seen) > 3
    assert verify(tmp_path).ok
