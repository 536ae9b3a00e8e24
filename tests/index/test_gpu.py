"""FAISS on a GPU, with a stand-in for the device: that work goes there, and that answers stay the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brivl_search.index import IndexReader, gpu, ivfpq
from tests.index.test_ivfpq import add, clustered, writer


class Device:
    """Counts what is copied to it; a copy on it is a copy in RAM."""

    def __init__(self) -> None:
        self.copied: list[str] = []
        self.full = False

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        faiss = ivfpq.faiss_module()

        class Options:
            useFloat16 = False

        def to_gpu(resources: object, number: int, index: Any, options: Options) -> Any:
            assert number == 0 and options.useFloat16
            if self.full:
                raise RuntimeError("out of memory")
            self.copied.append(type(faiss.downcast_index(index)).__name__)
            return faiss.clone_index(index)

        for name, value in {
            "StandardGpuResources": object,
            "GpuClonerOptions": Options,
            "get_num_gpus": lambda: 1,
            "index_cpu_to_gpu": to_gpu,
            "index_gpu_to_cpu": faiss.clone_index,
        }.items():
            monkeypatch.setattr(faiss, name, value, raising=False)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    ivfpq.faiss_module().omp_set_num_threads(1)
    device = Device()
    device.install(monkeypatch)
    monkeypatch.setattr(gpu, "_resources", None)
    monkeypatch.setattr(gpu, "_wanted", "cpu")  # a command run in this process by an earlier test chose "auto"
    return device


def build(directory: Path) -> IndexReader:
    with writer(directory, index_type="ivfpq", codec="pq8") as w:
        add(w, clustered(1000))
        w.commit()
    return IndexReader.open(directory)


def test_training_assignment_and_batches_go_there(tmp_path: Path, device: Device) -> None:
    plain = build(tmp_path / "cpu")
    gpu.choose("cuda")
    moved = build(tmp_path / "gpu")
    assert device.copied == ["IndexFlatIP", "IndexIVFPQ"]
    assert [s.checksum for s in moved.info.image.shards] == [s.checksum for s in plain.info.image.shards]
    queries = clustered(gpu.BATCH, seed=4)
    found = moved.search("image", queries, 10, nprobe=8, rerank=50)
    assert device.copied[2:] == ["IndexIVFPQ"]
    moved.search("image", queries[:3], 10, nprobe=8, rerank=50)
    assert len(device.copied) == 3  # a few queries are not worth the copy
    gpu.choose("cpu")
    assert np.array_equal(found.rows, plain.search("image", queries, 10, nprobe=8, rerank=50).rows)


def test_a_device_that_is_full(tmp_path: Path, device: Device) -> None:
    with writer(tmp_path, index_type="ivfpq") as w:
        add(w, clustered(1000))
        w.commit()
    gpu.choose("cuda:0")
    device.full = True
    with IndexReader.open(tmp_path) as reader:
        assert (reader.search("image", clustered(300), 10).rows >= 0).all()


@pytest.mark.parametrize(
    ("name", "number"), [("cpu", None), ("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:7", None), ("mps", None)]
)
def test_what_is_chosen(device: Device, name: str, number: int | None) -> None:
    gpu.choose(name)
    assert gpu.number(ivfpq.faiss_module()) == number


def test_without_faiss_gpu() -> None:
    class Plain:
        @staticmethod
        def get_num_gpus() -> int:
            return 0

    gpu.choose("cuda")
    assert gpu.number(Plain) is None
    gpu.choose("cpu")
