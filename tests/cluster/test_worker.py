"""A worker, without Ray: what a host must have, and what it makes of a unit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brivl_search.cluster import worker as workers
from brivl_search.cluster.crew import places
from brivl_search.cluster.session import Host
from brivl_search.cluster.units import Unit, UnitFolder
from brivl_search.cluster.worker import TOKEN, Job, Worker
from brivl_search.corpus.found import ImageFile
from brivl_search.corpus.walk import scan
from brivl_search.errors import EncoderError
from tests.support.pictures import write_corpus
from tests.support.stub import StubEncoder


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setattr(workers, "load_encoder", lambda name, **options: StubEncoder(name))
    write_corpus(tmp_path / "p", 5)
    (tmp_path / "units").mkdir()
    (tmp_path / "units" / TOKEN).write_text("token")
    sample = str(tmp_path / "p" / "images" / "0000-red-circle.jpg")
    stub = StubEncoder()
    return Job(str(tmp_path / "units"), "token", (sample,), "stub", {}, stub.fingerprint, stub.dim, 4, 60.0)


def test_what_a_host_must_have(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Worker(job, 0).start() == ""
    for change, told in (
        ({"version": "0.0.1"}, "not 0.0.1: install the same version"),
        ({"token": "another"}, f"does not see {job.folder}: put the index on storage"),
        ({"samples": ("/nowhere/1.jpg",)}, "does not see /nowhere/1.jpg: put the pictures on storage"),
        ({"fingerprint": "f" * 64}, "its encoder stub is another one"),
    ):
        assert told in Worker(replace(job, **change), 0).start()

    def missing(name: str, **options: Any) -> None:
        raise EncoderError(f"no encoder {name}")

    monkeypatch.setattr(workers, "load_encoder", missing)
    assert "cannot load the encoder stub (no encoder stub): put it where all hosts see it" in Worker(job, 0).start()


def test_a_unit_is_done_once(job: Job) -> None:
    """What is known, torn or gone needs no encoder; a content that is there twice needs it once."""
    files = scan([Path(job.samples[0]).parent]).images
    folder, worker = UnitFolder(Path(job.folder), job.dim), Worker(job, 0)
    assert worker.start() == ""
    twice = Path(files[0].path).with_name("twice.jpg")
    twice.write_bytes(Path(files[0].path).read_bytes())
    torn = Path(files[0].path).with_name("torn.jpg")
    torn.write_bytes(twice.read_bytes()[:100])
    more = [ImageFile(str(path), 1, 1) for path in (twice, torn, twice.with_name("gone.jpg"))]
    unit = Unit((*files, *more), ((),) * 8, 178.0)
    name = folder.put(unit)
    assert worker.embed(name) == (5, "")
    assert worker.embed(name) == (0, "") and worker.encoder.images == 5
    result = folder.read(name)
    assert result is not None and [row.decoded.reason for row in result.rows] == [""] * 6 + [
        "truncated",
        "file vanished",
    ]
    found = [row.vector for row in result.rows]
    assert found[0] is not None and found[5] is not None and np.array_equal(found[0], found[5])
    known = replace(unit, known=((result.rows[0].decoded.sha256,), *[()] * 7))
    assert worker.embed(folder.put(known)) == (5, "")  # `twice.jpg` itself is not known
    again = folder.read(known.name)
    assert again is not None and again.rows[0].decoded.known and again.rows[0].vector is None


def test_what_goes_wrong_comes_back_as_a_line(job: Job) -> None:
    worker = Worker(job, 0)
    embedded, problem = worker.embed("nothing")
    assert embedded == 0 and "No such file" in problem and "\n" not in problem


def test_room_for_workers() -> None:
    host = Host("n", "h", 8.0, 2.0)
    assert [places(host, gpus) for gpus in (0.0, 1.0, 0.5, 2.0, 4.0)] == [1, 2, 4, 1, 0]
    assert places(replace(host, cpus=0.0), 0.0) == 0
