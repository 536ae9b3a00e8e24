"""Connecting: what fails says so in one line, soon; nothing is reported to anybody."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from brivl_search.cluster.build import ClusterEmbedder
from brivl_search.cluster.session import connect
from brivl_search.corpus.walk import scan
from brivl_search.errors import BrivlSearchError, DependencyError, UsageError
from brivl_search.ingest.options import BuildOptions
from tests.support.building import Silent
from tests.support.pictures import write_corpus
from tests.support.stub import StubEncoder


@contextmanager
def listening(answer: bytes | None) -> Iterator[str]:
    """HOST:PORT of somebody who answers everyone with the same bytes, or with none."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            held = []
            while True:
                try:
                    line, _ = server.accept()
                except OSError:
                    return
                held.append(line)
                if answer is not None:
                    line.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        with socket.create_connection(server.getsockname()):  # wakes it up
            server.shutdown(socket.SHUT_RDWR)


def refused(address: str, kind: type[BrivlSearchError] = BrivlSearchError, within_s: float = 8.0) -> str:
    """The line that connecting ends with."""
    began = time.monotonic()
    with pytest.raises(kind) as caught, connect(address):
        pass
    assert time.monotonic() - began < within_s
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("address", ["ray://10.0.0.1:10001", "photos", "10.0.0.1", "10.0.0.1:", "./a:1", "h:70000"])
def test_an_address_that_is_none(address: str) -> None:
    assert address in refused(address, UsageError, 1.0)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    message = refused(address, within_s=2.0)
    assert message.startswith(f"no Ray cluster answers at {address} (Connection refused): start Ray there")


def test_somebody_else_listens() -> None:
    with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        assert "is not the head of a Ray cluster" in refused(address, within_s=2.0)


def test_somebody_listens_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brivl_search.cluster.session.ANSWER_S", 0.3)
    with listening(None) as address:
        assert "is not the head of a Ray cluster" in refused(address, within_s=2.0)


def test_no_cluster_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Word of one that is over: its address is named. Without any, what can be done."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "ray").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    (tmp_path / "ray" / "ray_current_cluster").write_text(address)
    assert address in refused("auto", within_s=2.0)
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    assert "nowhere" in refused("auto", UsageError, 1.0)


def test_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    message = refused("127.0.0.1:1", DependencyError, 1.0)
    assert "pip install" in message and "ray]" in message


def test_another_version(local_cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.__version__", "1.0.0")
    message = refused(local_cluster.address)
    assert "install the same versions" in message and "Python 3." in message and local_cluster.address in message


def test_hosts_of_a_cluster(local_cluster: Any) -> None:
    with connect(local_cluster.address) as session:
        hosts = session.hosts()
        assert [(host.cpus, host.gpus, dict(host.labels)) for host in hosts] == [(1.0, 0.0, {})] * 2
        assert session.address == local_cluster.address and not session.is_lost
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    with connect(local_cluster.address) as session:  # again, in the same process
        assert len(session.hosts()) == 2


def test_hosts_that_cannot_load_the_encoder(local_cluster: Any, tmp_path: Path) -> None:
    """All hosts refuse: one line says why, and nothing is published."""
    write_corpus(tmp_path / "p", 5)
    files = scan([tmp_path / "p" / "images"]).images
    with connect(local_cluster.address) as session:
        stub = StubEncoder("/nowhere/encoder")
        embedder = ClusterEmbedder(session, tmp_path / "i", stub, BuildOptions(workers=0), {}, 0.0)
        with pytest.raises(BrivlSearchError, match=r"cannot take part: it cannot load the encoder /nowhere/encoder"):
            list(embedder.embed(files, lambda path: 178.0, lambda file: (), Silent()))


def test_the_head_is_lost(monkeypatch: pytest.MonkeyPatch, local_cluster: Any) -> None:
    monkeypatch.setattr("brivl_search.cluster.session.LOST_AFTER", 1)
    monkeypatch.setattr("brivl_search.cluster.session.atexit", Mock())  # this process goes on
    with connect(local_cluster.address) as session:
        monkeypatch.setattr("brivl_search.cluster.session._listens", lambda address, timeout_s: "Connection refused")
        until = time.monotonic() + 10
        while not session.is_lost and time.monotonic() < until:
            time.sleep(0.05)
        with pytest.raises(BrivlSearchError, match="does not answer any more: start Ray again"):
            session.hosts()
    session.ray.shutdown()


def test_a_local_cluster_has_a_token_of_its_own_before_ray_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray reads it when it is imported, and not again."""
    before: list[dict[str, str]] = []

    def imported() -> None:
        before.append({name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH")})
        raise DependencyError("no Ray here")

    monkeypatch.setattr(os, "environ", {name: value for name, value in os.environ.items() if "RAY_AUTH" not in name})
    monkeypatch.setattr("brivl_search.cluster.session.import_ray", imported)
    refused("local", DependencyError)
    refused("127.0.0.1:9", DependencyError)
    assert before[0]["RAY_AUTH_MODE"] == "token" and len(before[0]["RAY_AUTH_TOKEN"]) == 64
    os.environ["RAY_AUTH_MODE"] = "disabled"
    refused("local", DependencyError)
    assert before[2]["RAY_AUTH_MODE"] == "disabled"
