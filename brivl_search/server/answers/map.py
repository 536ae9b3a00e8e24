"""A map of the collection: the image vectors in the plane of their two principal components."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.index import IndexReader
from brivl_search.server.protocol import keys
from brivl_search.server.workers.service import Service

MOST = 20_000  # points


class Maps:
    """The map of the generation that is open, computed once, in a thread, when somebody first asks."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = asyncio.Lock()
        self._map: dict[str, Any] | None = None

    async def get(self) -> dict[str, Any]:
        """`schemas.MapAnswer`."""
        reader = await self._service.fresh()
        async with self._lock:
            if self._map is None or self._map["state"] != reader.info.state:
                self._map = await self._service.slowly(lambda: compute(reader))
            return self._map


def compute(reader: IndexReader, most: int = MOST) -> dict[str, Any]:
    """`schemas.MapAnswer`; of more than `most` images an evenly spread sample."""
    total = reader.count("image")
    wanted = np.unique(np.linspace(0, total - 1, min(total, most)).round().astype(np.int64)) if total else np.array([])
    names: list[str] = []
    rows: list[NDArray[np.float16]] = []
    passed = 0
    for vectors, shard, numbers in reader.vectors("image"):
        here = wanted[(wanted >= passed) & (wanted < passed + len(numbers))] - passed
        passed += len(numbers)
        rows.append(np.asarray(vectors)[here])
        names += [keys.encode("image", reader.entry("image", shard, int(numbers[at]))["key"]) for at in here]
    plane = project(np.concatenate(rows).astype(np.float32)) if names else np.zeros((0, 2), np.float32)
    x, y = (column.round(4).astype(float).tolist() for column in plane.T)
    info = reader.info
    return {
        "generation": info.generation,
        "state": info.state,
        "method": "pca",
        "total": total,
        "keys": names,
        "x": x,
        "y": y,
    }


def project(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors (n, dim) → their first two principal components (n, 2), each scaled to -1..1."""
    centred = vectors - vectors.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    plane = centred @ axes[:, -2:][:, ::-1]
    if plane.shape[1] < 2:
        plane = np.pad(plane, ((0, 0), (0, 2 - plane.shape[1])))
    # The sign of an eigenvector is arbitrary; so that the map of the next generation is no mirror image of this one:
    plane *= np.where(np.power(plane, 3).sum(0) < 0, -1, 1)
    scaled: NDArray[np.float32] = (plane / np.maximum(np.abs(plane).max(0), 1e-12)).astype(np.float32)
    return scaled
