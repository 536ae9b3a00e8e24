"""Everything FAISS: sizes, training, building, searching where the bytes lie. The only module that imports faiss."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.errors import DependencyError, install_hint
from brivl_search.index import gpu
from brivl_search.index.types import Codec

PQ_CENTROIDS = 256
POINTS_PER_CENTROID = 39  # FAISS warns below this
AUTO_THRESHOLD = POINTS_PER_CENTROID * PQ_CENTROIDS  # 9,984 rows: the fewest that train a PQ honestly
FORCED_MINIMUM = PQ_CENTROIDS  # FAISS refuses fewer
MAX_TRAINING_ROWS = 500_000
FASTSCAN_BLOCK = 32  # rows that FAISS packs together in 4-bit codes
GPU_MOST = 2048  # FAISS's own limit for k and nprobe on a GPU


def faiss_module() -> Any:
    """The faiss package, imported at the first call.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise DependencyError(f"faiss is not installed: {install_hint('cpu')} (or [gpu])") from error
    return faiss


def usable(codec: Codec, dim: int) -> Codec:
    """The codec asked for, or "pq8" where there is no even number of 4-bit codes that divides `dim`."""
    return codec if dim % 2 == 0 else "pq8"


def pq_bytes(dim: int, rows: int = 0, memory: int = 0, codec: Codec = "pq8") -> int:
    """PQ bytes per row, the choice nearest in ratio to dim / 4 with 8 bits (64 for 256) and to dim / 8 with 4 (32).

    Args:
        dim: of the vectors.
        rows: that there are.
        memory: bytes that all of FAISS's part may take, 0 for no limit. Not below dim / 32 bytes a row, where codes
            say too little; see `faiss_bytes`.
        codec: "pq8": a byte for each of `m` sub-vectors; "fastscan": half a byte for each of 2 `m`.
    """
    share, codes = (4, 1) if codec == "pq8" else (8, 2)  # of the dimensions; sub-vectors a byte
    divisors = [m for m in range(1, dim // codes + 1) if dim % (codes * m) == 0]
    best = min(divisors, key=lambda m: (abs(math.log(share * m / dim)), m))
    allowed = [m for m in divisors if m <= best and 32 * m >= dim] or [best]
    fitting = [m for m in allowed if not memory or faiss_bytes(rows, dim, list_count(rows), m) <= memory]
    return max(fitting, default=min(allowed))


def faiss_bytes(rows: int, dim: int, nlist: int, m: int) -> int:
    """Bytes of an IndexIVFPQ: codes and 8-byte ids, centroids of the lists and of the PQ."""
    return rows * (m + 8) + 4 * dim * (nlist + PQ_CENTROIDS)


def list_count(rows: int) -> int:
    """Inverted lists for `rows` rows: 2^round(log2(4·√rows)), and never fewer than 39 training rows for each."""
    wanted = 2 ** round(math.log2(4 * math.sqrt(max(rows, 1))))
    affordable = max(1, min(rows, MAX_TRAINING_ROWS) // POINTS_PER_CENTROID)
    return int(min(wanted, 2 ** int(math.log2(affordable))))


def training_rows(rows: int, nlist: int, dim: int = 0, memory: int = 0) -> int:
    """Rows to train with: 64 for each list, at least the 65,536 a PQ uses, never more than exist.

    A memory budget lowers that, down to the 39 for each centroid that FAISS asks for.
    """
    wanted = max(64 * nlist, 256 * PQ_CENTROIDS)
    if memory:
        least = POINTS_PER_CENTROID * max(nlist, PQ_CENTROIDS)
        wanted = max(least, min(wanted, memory // (4 * dim)))
    return min(rows, MAX_TRAINING_ROWS, wanted)


def coding_error(trained: bytes, rows: NDArray[np.float32]) -> float:
    """Mean squared distance between rows (n, dim) and what their codes say: grows where the data has drifted."""
    index = faiss_module().deserialize_index(np.frombuffer(trained, dtype=np.uint8))
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    _, lists = index.quantizer.search(rows, 1)
    left = rows - index.quantizer.reconstruct_batch(lists[:, 0])
    coded = index.pq.decode(index.pq.compute_codes(left))  # sa_decode crashes on a 4-bit index that was read
    return float(np.square(left - coded).sum(1).mean())


def train(sample: NDArray[np.float32], nlist: int, m: int, seed: int, codec: Codec = "pq8") -> bytes:
    """Train an empty IndexIVFPQ (8 bit, no polysemous pass) or IndexIVFPQFastScan (4 bit), for inner product.

    Args:
        sample: float32 (rows, dim), at least 256 rows.
        nlist: inverted lists.
        m: PQ bytes per row; see `pq_bytes`.
        seed: of both k-means.
        codec: of the rows.

    Returns:
        The serialized index; it is the same for the same arguments on the same machine.
    """
    faiss = faiss_module()
    dim = sample.shape[1]
    quantizer = faiss.IndexFlatIP(dim)
    if codec == "fastscan":
        index = faiss.IndexIVFPQFastScan(quantizer, dim, nlist, 2 * m, 4, faiss.METRIC_INNER_PRODUCT)
        index.by_residual = True
    else:
        index = faiss.IndexIVFPQ(quantizer, dim, nlist, m, 8, faiss.METRIC_INNER_PRODUCT)
    for clustering in (index.cp, index.pq.cp):
        clustering.seed = seed + 1234
        clustering.min_points_per_centroid = 1  # the caller has counted, and says so where they are few
        clustering.max_points_per_centroid = max(256, -(-len(sample) // nlist))
    index.pq.cp.max_points_per_centroid = 256
    if gpu.number(faiss) is not None:
        index.clustering_index = held = gpu.copy(faiss, faiss.IndexFlatIP(dim))
        index.referenced_objects = [quantizer, held]
    index.train(np.ascontiguousarray(sample, dtype=np.float32))
    return bytes(faiss.serialize_index(index))


def build(trained: bytes, blocks: Iterable[NDArray[np.float32]]) -> dict[str, NDArray[np.uint8]]:
    """Add rows to a copy of the trained index, ids = row numbers.

    Returns:
        What `view` needs: "ivfpq", FAISS bytes of the index; and "lists" if those are apart from it (4 bit).
    """
    faiss = faiss_module()
    index = faiss.deserialize_index(np.frombuffer(trained, dtype=np.uint8))
    if on_gpu := gpu.number(faiss) is not None:
        try:
            index = gpu.copy(faiss, index)
        except RuntimeError:  # too large for the device, or codes it does not know
            on_gpu = False
    for block in blocks:
        index.add(np.ascontiguousarray(block, dtype=np.float32))
    if isinstance(index, faiss.IndexIVFPQFastScan):
        lists = pack_lists(index)
        index.reset()
        return {"ivfpq": faiss.serialize_index(index), "lists": lists}
    return {"ivfpq": faiss.serialize_index(faiss.index_gpu_to_cpu(index) if on_gpu else index)}


def _layout(sizes: NDArray[np.int64], code_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Room (rows) and offset (bytes) of each list in `pack_lists`, and the bytes of all."""
    room = -(-sizes // FASTSCAN_BLOCK) * FASTSCAN_BLOCK
    head = 8 * len(sizes)
    ends = np.cumsum(room * (code_size + 8)) + head
    return room, np.concatenate([[head], ends[:-1]]), int(ends[-1])


def pack_lists(index: Any) -> NDArray[np.uint8]:
    """The lists of an IndexIVFPQFastScan so that FAISS's OnDiskInvertedLists can read them where they lie.

    int64 rows of each list (nlist,); then for each list, with room for its rows rounded up to 32, the codes as FAISS
    blocks them (room x code_size bytes) and the int64 ids (room,).
    """
    faiss = faiss_module()
    lists = faiss.downcast_InvertedLists(index.invlists)
    sizes = np.array([lists.list_size(number) for number in range(index.nlist)], dtype=np.int64)
    room, offsets, total = _layout(sizes, index.code_size)
    packed: NDArray[np.uint8] = np.zeros(total, dtype=np.uint8)
    packed[: sizes.nbytes] = sizes.view(np.uint8)
    for number in np.flatnonzero(sizes).tolist():
        codes, size = int(room[number]) * index.code_size, int(sizes[number])
        at = int(offsets[number])
        packed[at : at + codes] = faiss.rev_swig_ptr(lists.get_codes(number), codes)
        packed[at + codes : at + codes + 8 * size] = faiss.rev_swig_ptr(lists.get_ids(number), size).view(np.uint8)
    return packed


class _Borrowed:
    """Lists in memory that is not FAISS's: its destructor, which would unmap it, is told so first."""

    def __init__(self, lists: Any, raw: NDArray[np.uint8]) -> None:
        self.lists, self.raw = lists, raw

    def __del__(self) -> None:
        self.lists.ptr = None


def view(raw: NDArray[np.uint8], lists: NDArray[np.uint8] | None = None) -> Any:
    """An index whose lists lie in `raw`, or in `lists`: views of an LMDB map, which it keeps alive.

    Raises: RuntimeError (FAISS) or ValueError if the bytes are no such index.
    """
    faiss = faiss_module()
    reader = faiss.ZeroCopyIOReader(faiss.swig_ptr(raw), raw.nbytes)
    index = faiss.read_index(reader)
    index.referenced_objects = [reader, raw]
    if lists is None:
        return index
    sizes = lists[: 8 * index.nlist].view(np.int64)
    room, offsets, total = _layout(sizes, index.code_size)
    if total != lists.nbytes or (sizes < 0).any():
        raise ValueError("its inverted lists have another size than they say")
    borrowed = faiss.OnDiskInvertedLists()
    borrowed.nlist, borrowed.code_size = index.nlist, index.code_size
    borrowed.read_only, borrowed.prefetch_nthread = True, 0
    table = np.stack([sizes, room, offsets], axis=1).astype(np.uint64)
    borrowed.lists.resize(index.nlist)
    faiss.memcpy(borrowed.lists.data(), faiss.swig_ptr(table), table.nbytes)
    borrowed.ptr, borrowed.totsize = faiss.swig_ptr(lists), lists.nbytes
    index.replace_invlists(borrowed, False)
    index.ntotal = int(sizes.sum())
    index.referenced_objects.append(_Borrowed(borrowed, lists))
    return index


def candidates(
    index: Any,
    queries: NDArray[np.float32],
    count: int,
    nprobe: int,
    live: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """The row numbers of `near_codes`."""
    return near_codes(index, queries, count, nprobe, live)[0]


def near_codes(
    index: Any,
    queries: NDArray[np.float32],
    count: int,
    nprobe: int,
    live: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Row numbers of the `count` nearest codes in `nprobe` lists, nearest first, -1 where there are fewer.

    Args:
        index: an IndexIVFPQ or IndexIVFPQFastScan; no setting of it is changed.
        queries: float32 (n, dim).
        count: candidates for each query.
        nprobe: lists to visit.
        live: bool (rows,); rows that may be returned, None for all.

    Returns:
        int64 (n, count), and the dot products with the codes, float32 (n, count).
    """
    faiss = faiss_module()
    if live is None and len(queries) >= gpu.BATCH and count <= GPU_MOST and gpu.number(faiss) is not None:
        try:
            on_gpu = gpu.copy(faiss, index)
        except RuntimeError:
            pass
        else:
            on_gpu.nprobe = min(nprobe, index.nlist, GPU_MOST)
            gpu_near, gpu_found = on_gpu.search(queries, count)
            return gpu_found, gpu_near
    parameters = faiss.SearchParametersIVF(nprobe=min(nprobe, index.nlist))
    if live is not None:
        bitmap = np.packbits(live, bitorder="little")
        parameters.sel = selector = faiss.IDSelectorBitmap(bitmap)
        near, rows = index.search(queries, count, params=parameters)
        del selector
    else:
        near, rows = index.search(queries, count, params=parameters)
    return rows, near
