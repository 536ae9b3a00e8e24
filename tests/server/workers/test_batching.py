"""Batching: requests that wait together go together, and none gets another's answer. And the steps that are timed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")

from brivl_search import steps
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.run import build_index
from brivl_search.search.engine import SearchOptions
from brivl_search.server.workers.batching import Batcher, Overloaded
from tests.support import serving
from tests.support.pictures import COLOURS, SHAPES, write_corpus
from tests.support.stub import Silent


class Gate:
    """Work that waits until it is let go, and remembers what it was given."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.open = threading.Event()
        self.begun = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.calls.append(list(items))
        self.begun.set()
        assert self.open.wait(10)
        if -1 in items:
            raise ValueError("minus one")
        return [item * item for item in items]


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


def test_what_waits_goes_together(gate: Gate) -> None:
    batcher = Batcher(gate, "test", most=5)
    first = batcher.submit([1])
    assert gate.begun.wait(5)  # a lone request waits for no company
    later = [batcher.submit([n, n + 1]) for n in (2, 4, 6)]
    assert batcher.waiting == 7
    gate.open.set()
    assert first.result(5) == [1] and [one.result(5) for one in later] == [[4, 9], [16, 25], [36, 49]]
    assert gate.calls == [[1], [2, 3, 4, 5], [6, 7]]
    assert batcher.waiting == 0 and batcher.submit([]).result(1) == []
    batcher.close()
    with pytest.raises(Overloaded):
        batcher.submit([1])


def test_a_long_request_goes_in_pieces_and_in_order(gate: Gate) -> None:
    gate.open.set()
    batcher = Batcher(gate, "test", most=4)
    assert batcher.submit(range(10)).result(5) == [n * n for n in range(10)]
    assert gate.calls == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    batcher.close()


def test_different_kinds_do_not_mix(gate: Gate) -> None:
    batcher = Batcher(gate, "test", alike=lambda n: n % 2)
    futures = [batcher.submit([0])]
    assert gate.begun.wait(5)
    futures += [batcher.submit([n]) for n in (1, 2, 3, 4)]
    gate.open.set()
    assert [one.result(5) for one in futures] == [[0], [1], [4], [9], [16]]
    assert gate.calls == [[0], [1, 3], [2, 4]]
    batcher.close()


def test_errors_reach_those_who_asked_and_the_thread_lives_on(gate: Gate) -> None:
    gate.open.set()
    batcher = Batcher(gate, "test")
    with pytest.raises(ValueError, match="minus one"):
        batcher.submit([-1]).result(5)
    assert batcher.submit([3]).result(5) == [9] and batcher.waiting == 0
    batcher.close()


def test_what_nobody_waits_for_is_left_out_and_too_much_is_refused(gate: Gate) -> None:
    batcher = Batcher(gate, "test", waiting=4)
    first = batcher.submit([1])
    assert gate.begun.wait(5)
    dropped, kept = batcher.submit([2]), batcher.submit([3, 4])
    with pytest.raises(Overloaded):
        batcher.submit([5])
    assert dropped.cancel()
    gate.open.set()
    assert first.result(5) == [1] and kept.result(5) == [9, 16]
    batcher.close()
    assert gate.calls == [[1], [3, 4]] and batcher.waiting == 0


def test_concurrent_queries_share_towers_and_get_their_own_answers(tmp_path: Path) -> None:
    index = serving.write_site(tmp_path, 30)
    texts = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
    engine = serving.open_engine(index)
    expected = {text: [hit.path for hit in engine.by_text(text, SearchOptions(5))] for text in texts}
    with serving.client(index) as client:
        stub = client.app.state.service.encoder  # type: ignore[attr-defined]
        calls, real = [], stub.encode_texts

        def slow(some: Sequence[str]) -> object:
            calls.append(len(some))
            time.sleep(0.02)
            return real(some)

        stub.encode_texts = slow

        def ask(n: int) -> bool:
            text = texts[n % len(texts)]
            answer = client.post("/v1/search", json={"text": text, "k": 5}).json()
            return [hit["path"] for hit in answer["hits"]] == expected[text]

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(ask, range(120)))
        assert len(calls) < 60 and max(calls) > 4


def test_no_request_is_dropped_while_generations_change(tmp_path: Path) -> None:
    index = serving.write_site(tmp_path, 8)
    with serving.client(index) as client, ThreadPoolExecutor(4) as pool:
        done = threading.Event()

        def keep_asking(n: int) -> tuple[int, set[int]]:
            seen, count = set(), 0
            while not done.is_set() or count < 5:
                answer = client.post("/v1/search", json={"text": f"a red circle {n}", "k": 3})
                assert answer.status_code == 200 and len(answer.json()["hits"]) == 3, answer.text
                seen.add(answer.json()["generation"])
                key = answer.json()["hits"][0]["key"]
                assert client.get(f"/v1/items/{key}").status_code == 200
                count += 1
            return count, seen

        asking = [pool.submit(keep_asking, n) for n in range(4)]
        for n in range(9, 14):
            write_corpus(tmp_path / "photos", n)
            build_index([tmp_path / "photos"], index, serving.encoder(), BuildOptions(workers=0), Silent())
            time.sleep(0.05)
        done.set()
        results = [one.result(30) for one in asking]
    assert max(max(seen) for _, seen in results) >= 5 and all(len(seen) > 1 for _, seen in results)


def test_steps_count_what_is_inside_once() -> None:
    @steps.step("inner")
    def inner() -> None:
        time.sleep(0.02)

    @steps.step("outer")
    def outer() -> None:
        inner()
        inner()
        time.sleep(0.01)

    outer()  # nobody collects
    with steps.collect() as seconds:
        outer()
        thread = threading.Thread(target=outer)  # collects for itself, and does not
        thread.start()
        thread.join()
        inner()
    assert 0.06 <= seconds["inner"] < 0.12 and 0.01 <= seconds["outer"] < 0.04
    with steps.collect() as seconds:
        pass
    assert seconds == {}


def test_others_have_a_turn_between_the_pieces_of_a_long_request(gate: Gate) -> None:
    batcher = Batcher(gate, "test", most=4)
    first = batcher.submit([0])
    assert gate.begun.wait(5)
    long, short = batcher.submit(range(1, 12)), batcher.submit([20])
    gate.open.set()
    assert first.result(5) == [0] and long.result(5) == [n * n for n in range(1, 12)] and short.result(5) == [400]
    assert gate.calls == [[0], [1, 2, 3, 4], [20], [5, 6, 7, 8], [9, 10, 11]]
    batcher.close()
    assert batcher.waiting == 0
