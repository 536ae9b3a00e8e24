"""Everything FAISS: sizes, training, building, searching where the bytes lie. The only module that imports faiss."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DependencyError

PQ_CENTROIDS = 256
POINTS_PER_CENTROID = 39  # FAISS warns below this
AUTO_THRESHOLD = POINTS_PER_CENTROID * PQ_CENTROIDS  # 9,984 rows: the fewest that train a PQ honestly
FORCED_MINIMUM = PQ_CENTROIDS  # FAISS refuses fewer
MAX_TRAINING_ROWS = 500_000


def faiss_module() -> Any:
    """The faiss package, imported at the first call.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise DependencyError("faiss is not installed: pip install 'brivl-search[cpu]' (or [gpu])") from error
    return faiss


def pq_bytes(dim: int) -> int:
    """PQ bytes per row: the divisor of `dim` nearest to dim / 4 (64 for 256), in ratio."""
    divisors = [m for m in range(1, dim + 1) if dim % m == 0]
    return min(divisors, key=lambda m: (abs(math.log(4 * m / dim)), m))


def list_count(rows: int) -> int:
    """Inverted lists for `rows` rows: 2^round(log2(4·√rows)), and never fewer than 39 training rows for each."""
    wanted = 2 ** round(math.log2(4 * math.sqrt(max(rows, 1))))
    affordable = max(1, min(rows, MAX_TRAINING_ROWS) // POINTS_PER_CENTROID)
    return int(min(wanted, 2 ** int(math.log2(affordable))))


def training_rows(rows: int, nlist: int) -> int:
    """Rows to train with: 64 for each list, at least the 65,536 a PQ uses, never more than exist."""
    return min(rows, MAX_TRAINING_ROWS, max(64 * nlist, 256 * PQ_CENTROIDS))


def train(sample: NDArray[np.float32], nlist: int, m: int, seed: int) -> bytes:
    """Train an empty IndexIVFPQ (inner product, 8 bit, no polysemous pass).

    Args:
        sample: float32 (rows, dim), at least 256 rows.
        nlist: inverted lists.
        m: PQ bytes per row; divides dim.
        seed: of both k-means.

    Returns:
        The serialized index; it is the same for the same arguments on the same machine.
    """
    faiss = faiss_module()
    dim = sample.shape[1]
    quantizer = faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFPQ(quantizer, dim, nlist, m, 8, faiss.METRIC_INNER_PRODUCT)
    for clustering in (index.cp, index.pq.cp):
        clustering.seed = seed + 1234
        clustering.min_points_per_centroid = 1  # the caller has counted, and says so where they are few
        clustering.max_points_per_centroid = max(256, -(-len(sample) // nlist))
    index.pq.cp.max_points_per_centroid = 256
    index.train(np.ascontiguousarray(sample, dtype=np.float32))
    return bytes(faiss.serialize_index(index))


def build(trained: bytes, blocks: Iterable[NDArray[np.float32]]) -> NDArray[np.uint8]:
    """Add rows to a copy of the trained index, ids = row numbers; returns the serialized bytes (uint8)."""
    faiss = faiss_module()
    index = faiss.deserialize_index(np.frombuffer(trained, dtype=np.uint8))
    for block in blocks:
        index.add(np.ascontiguousarray(block, dtype=np.float32))
    serialized: NDArray[np.uint8] = faiss.serialize_index(index)
    return serialized


def view(raw: NDArray[np.uint8]) -> Any:
    """An IndexIVFPQ whose lists lie in `raw` (a view of an LMDB map), which it keeps alive; nothing is copied."""
    faiss = faiss_module()
    reader = faiss.ZeroCopyIOReader(faiss.swig_ptr(raw), raw.nbytes)
    index = faiss.read_index(reader)
    index.referenced_objects = [reader, raw]
    return index


def candidates(
    index: Any,
    queries: NDArray[np.float32],
    count: int,
    nprobe: int,
    live: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Row numbers of the `count` nearest codes in `nprobe` lists, nearest first, -1 where there are fewer.

    Args:
        index: an IndexIVFPQ; no setting of it is changed.
        queries: float32 (n, dim).
        count: candidates for each query.
        nprobe: lists to visit.
        live: bool (rows,); rows that may be returned, None for all.

    Returns:
        int64 (n, count).
    """
    faiss = faiss_module()
    parameters = faiss.SearchParametersIVF(nprobe=min(nprobe, index.nlist))
    if live is not None:
        bitmap = np.packbits(live, bitorder="little")
        parameters.sel = selector = faiss.IDSelectorBitmap(bitmap)
        _, rows = index.search(queries, count, params=parameters)
        del selector
    else:
        _, rows = index.search(queries, count, params=parameters)
    found: NDArray[np.int64] = rows
    return found
