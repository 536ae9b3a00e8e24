"""Slow jobs cost the client that sent them: no client has all threads, and each has its turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")

from starlette.testclient import TestClient

from brivl_search.search import live
from brivl_search.server import Settings, create_app
from brivl_search.server.workers.batching import Overloaded
from brivl_search.server.workers.fair import FairPool
from tests.support import serving


class Jobs:
    """Jobs that wait until they are let go, and the order in which they began."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.gates: dict[str, threading.Event] = {}

    def __call__(self, name: str) -> Callable[[], str]:
        gate = self.gates[name] = threading.Event()

        def job() -> str:
            self.begun.append(name)
            assert gate.wait(20)
            return name

        return job

    def wait_for(self, *names: str) -> None:
        deadline = time.monotonic() + 10
        while not set(names) <= set(self.begun):
            assert time.monotonic() < deadline, self.begun
            time.sleep(0.002)


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    jobs = Jobs()
    yield jobs
    for gate in jobs.gates.values():
        gate.set()


def test_no_client_has_all_threads(jobs: Jobs) -> None:
    pool = FairPool(3, "test")
    mine = [pool.submit("a", jobs(f"a{n}")) for n in range(4)]
    jobs.wait_for("a0", "a1")
    other = pool.submit("b", jobs("b0"))
    jobs.wait_for("b0")
    assert jobs.begun == ["a0", "a1", "b0"] and pool.waiting == 5
    jobs.gates["b0"].set()
    assert other.result(10) == "b0"
    time.sleep(0.05)
    assert "a2" not in jobs.begun  # a thread is free, and stays so for others
    for gate in jobs.gates.values():
        gate.set()
    assert [one.result(10) for one in mine] == ["a0", "a1", "a2", "a3"]
    pool.close()
    assert pool.waiting == 0


def test_the_client_with_the_fewest_running_is_next(jobs: Jobs) -> None:
    pool = FairPool(3, "test")
    for n in range(3):
        pool.submit("a", jobs(f"a{n}"))
    pool.submit("b", jobs("b0"))
    jobs.wait_for("a0", "a1", "b0")
    for name in ("b1", "c0", "c1"):
        pool.submit(name[0], jobs(name))
    for done, next_ in (("a0", "c0"), ("a1", "a2"), ("b0", "b1")):
        jobs.gates[done].set()
        jobs.wait_for(next_)
    assert "c1" not in jobs.begun
    for gate in jobs.gates.values():
        gate.set()
    pool.close()
    assert sorted(jobs.begun) == ["a0", "a1", "a2", "b0", "b1", "c0", "c1"]


def test_errors_cancelled_jobs_and_too_many(jobs: Jobs) -> None:
    pool = FairPool(2, "test", waiting=3)
    first = pool.submit("a", jobs("a0"))
    jobs.wait_for("a0")
    dropped = pool.submit("a", jobs("a1"))
    broken = pool.submit("b", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        broken.result(10)
    again = pool.submit("a", jobs("a2"))
    with pytest.raises(Overloaded):
        pool.submit("c", jobs("c0"))
    assert dropped.cancel()
    jobs.gates["a0"].set()
    jobs.gates["a2"].set()
    assert first.result(10) == "a0" and again.result(10) == "a2"
    pool.close()
    assert jobs.begun == ["a0", "a2"] and pool.waiting == 0
    with pytest.raises(Overloaded):
        pool.submit("a", lambda: 1)


@pytest.fixture
def slow_filters(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[TestClient, threading.Event, list[str]]]:
    """A server in which filters for files called slow… take until they are let go; which were evaluated."""
    gate, seen = threading.Event(), []
    real = live.allowed

    def allowed(reader: object, modality: object, wanted: object) -> object:
        seen.append(*wanted.glob)  # type: ignore[attr-defined]
        if wanted.glob[0].startswith("slow"):  # type: ignore[attr-defined]
            assert gate.wait(20)
        return real(reader, modality, wanted)  # type: ignore[arg-type]

    monkeypatch.setattr(live, "allowed", allowed)
    app = create_app(serving.open_engine(index), Settings(warm=False, decoders=1, trusted_proxies=("127.0.0.1",)))
    with TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 1)) as client:
        yield client, gate, seen
        gate.set()


def ask(client: TestClient, glob: str, who: str) -> int:
    request = {"text": "x", "k": 2, "filters": {"glob": [glob]}}
    return client.post("/v1/search", json=request, headers={"X-Forwarded-For": who}).status_code


def test_slow_filters_of_one_client_block_no_other(
    slow_filters: tuple[TestClient, threading.Event, list[str]],
) -> None:
    client, gate, _ = slow_filters
    with ThreadPoolExecutor(12) as threads:
        slow = [threads.submit(ask, client, f"slow{n}*", "1.1.1.1") for n in range(8)]
        time.sleep(0.2)
        start = time.monotonic()
        assert ask(client, "*-red-*", "2.2.2.2") == 200  # another client's filter
        assert client.post("/v1/search", json={"text": "x", "exact": True, "k": 2}).status_code == 200
        assert client.get("/v1/index").status_code == 200 and client.get("/healthz").status_code == 200
        assert client.post("/v1/search", json={"text": "x"}, headers={"X-Forwarded-For": "1.1.1.1"}).status_code == 200
        assert time.monotonic() - start < 5 and not any(one.done() for one in slow)
        gate.set()
        assert {one.result(30) for one in slow} == {200}


def test_a_filter_that_many_ask_for_is_evaluated_once(
    slow_filters: tuple[TestClient, threading.Event, list[str]],
) -> None:
    client, gate, seen = slow_filters
    with ThreadPoolExecutor(12) as threads:
        same = [threads.submit(ask, client, "slow*", f"3.3.3.{n}") for n in range(10)]
        time.sleep(0.3)
        assert ask(client, "*-blue-*", "2.2.2.2") == 200  # those that wait hold no thread
        gate.set()
        assert {one.result(30) for one in same} == {200}
    # Once to evaluate it, and then to tell each of the ten why nothing fits.
    assert seen[: seen.index("*-blue-*")] == ["slow*"]
