"""The engines that `benchmarks/search.py` compares: how each is built, opened and asked.

Nothing here imports brivl_search except `Ours` and `FaissIVFPQ`: the others run in an environment that lacks it. A
folder holds one collection: vectors.npy (float32, the rows), queries.npy and truth.npy (int64, the ten best rows of
each query), and one entry for each engine's index.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from brivl_search.index import IndexReader

REPOSITORY = Path(__file__).resolve().parent.parent
K = 10
LINKS, EFFORT = 16, 100  # of every HNSW: M, efConstruction
WIDTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768)  # efSearch
PROBES = (2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)

RERANKS = (40, 60, 100, 200)

Setting = dict[str, int]


def list_count(rows: int) -> int:
    """Inverted lists, as our own index has them."""
    return int(2 ** round(np.log2(4 * np.sqrt(rows))))


def blocks(vectors: np.ndarray, size: int = 50_000) -> Iterator[np.ndarray]:
    for at in range(0, len(vectors), size):
        yield np.ascontiguousarray(vectors[at : at + size])


class Engine:
    """One way of searching. `curve` yields runs of settings, each run from fast and poor to slow and good."""

    disk = False  # is it searched where it lies on disk?
    ours = False  # does it need brivl_search?
    entry = ""  # name inside the folder; empty: nothing of its own is kept

    def load(self) -> None:
        """Import what it needs, before any clock starts."""

    def build(self, folder: Path, vectors: np.ndarray) -> None:
        """Write the index."""

    def open(self, folder: Path) -> None:
        """Make ready for the first query."""

    def settle(self) -> None:
        """Wait for what goes on in the background after opening."""

    def curve(self) -> list[list[Setting]]:
        return [[{"ef": width} for width in WIDTHS]]

    def search(self, queries: np.ndarray, setting: Setting) -> np.ndarray:
        """int64 (n, 10) row numbers."""
        raise NotImplementedError


def reader_opener() -> Callable[[Path], IndexReader]:
    """`IndexReader.open`, with FAISS imported."""
    sys.path.insert(0, str(REPOSITORY))
    from brivl_search.index import IndexReader
    from brivl_search.index.ivfpq import faiss_module

    faiss_module()
    return IndexReader.open


class Ours(Engine):
    """The default: everything is searched in the map, which a thread brings into memory meanwhile (`reader.warm`)."""

    disk, ours, entry = True, True, "ours"

    def load(self) -> None:
        self.open_reader = reader_opener()

    def open(self, folder: Path) -> None:
        self.reader = self.open_reader(folder / self.entry)
        shards = self.reader.info.image.shards
        self.first = np.cumsum([0, *(shard.rows for shard in shards)])[:-1]
        assert all(part.shard.index is not None for part in self.reader._parts["image"])
        self.warming = self.reader.warm()

    def settle(self) -> None:
        if self.warming is not None:
            self.warming.join()

    def tuned(self) -> Setting:
        tuning = self.reader.info.image.tuning
        if tuning is None:
            raise SystemExit("the index was sealed without tuning: build it again")
        return {"nprobe": tuning.nprobe, "rerank": tuning.rerank}

    def curve(self) -> list[list[Setting]]:
        own = [[self.tuned()]]
        return own + [[{"nprobe": n, "rerank": rerank} for n in PROBES] for rerank in RERANKS]

    def search(self, queries: np.ndarray, setting: Setting) -> np.ndarray:
        found = self.reader.search("image", queries, K, nprobe=setting["nprobe"], rerank=setting["rerank"])
        rows: np.ndarray = self.first[found.shards] + found.rows
        return rows


class OursPQ8(Ours):
    """8-bit codes, which are searched in the map too."""

    entry = "ours-pq8"


class FaissIVFPQ(Engine):
    """Our quantizer and rows in FAISS's own index, and its own re-rank (IndexRefine) over float16 rows in RAM."""

    ours = True

    def load(self) -> None:
        self.open_reader = reader_opener()
        import faiss

        self.faiss = faiss

    def open(self, folder: Path) -> None:
        faiss, reader = self.faiss, self.open_reader(folder / Ours.entry)
        parts = [part.shard for part in reader._parts["image"]]
        base = faiss.deserialize_index(np.array(parts[0]._mapped(b"ivfpq")))  # trained
        base.reset()
        rows = faiss.IndexScalarQuantizer(base.d, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        for shard in parts:
            for block in blocks(shard.vectors):
                base.add(block.astype(np.float32))
                rows.add(block.astype(np.float32))
        self.index = faiss.IndexRefine(base, rows)
        self.kept = (base, rows)

    def curve(self) -> list[list[Setting]]:
        return [[{"nprobe": n, "rerank": rerank} for n in PROBES] for rerank in RERANKS]

    def search(self, queries: np.ndarray, setting: Setting) -> np.ndarray:
        faiss = self.faiss
        inner = faiss.SearchParametersIVF(nprobe=setting["nprobe"])
        outer = faiss.IndexRefineSearchParameters(k_factor=setting["rerank"] / K, base_index_params=inner)
        rows: np.ndarray = self.index.search(queries, K, params=outer)[1]
        return rows


class FaissExact(Engine):
    def load(self) -> None:
        import faiss

        self.faiss = faiss

    def open(self, folder: Path) -> None:
        vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        self.index = self.faiss.IndexFlatIP(vectors.shape[1])
        for block in blocks(vectors):
            self.index.add(block)

    def curve(self) -> list[list[Setting]]:
        return [[{}]]

    def search(self, queries: np.ndarray, setting: Setting) -> np.ndarray:
        rows: np.ndarray = self.index.search(queries, K)[1]
        return rows


class FaissHNSW(Engine):
    entry = "hnsw.faiss"

    def load(self) -> None:
        import faiss

        self.faiss = faiss

    def build(self, folder: Path, vectors: np.ndarray) -> None:
        index = self.faiss.IndexHNSWFlat(vectors.shape[1], LINKS, self.faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = EFFORT
        for block in blocks(vectors):
            index.add(block)
        self.faiss.write_index(index, str(folder / self.entry))

    def open(self, folder: Path) -> None:
        self.index = self.faiss.read_index(str(folder / self.entry))

    def search(self, queries: np.ndarray, setting: Setting) -> np.ndarray:
        effort = self.faiss.SearchParametersHNSW(efSearch=setting["ef"])  # type: ignore[attr-defined]  # not in faiss' stubs
        rows: np.ndarray = self.index.search(queries, K, params=effort)[1]
        return rows


class HNSWLib(Engine):
    entry = "hnswlib.bin"

    def load(self) -> None:
        import hnswlib

        self.hnswlib = hnswlib

    def build(self, folder: Path, vectors: np.ndarray) -> None:
        index = self.hnswlib.Index("ip", vectors.shape[1])
        index.init_index(max_elements=len(vectors), M=LINKS, ef_construction=EFFORT)
        for number, block in enumerate(blocks(vectors)):
            index.add_items(block, np.arange(len(block)) + 50_000 * number)
        index.save_index(str(folder / self.entry))

    def open(self, folder: Path) -> None:
        self.index = self.hnswlib.Index("ip", np.load(folder / "queries.npy", mmap_mode="r").shape[1])
        self.index.load_index(str(folder / self.entry))

    def search(self, queries: np.ndarray, setting: Setting) -> np.ndarray:
        self.index.set_ef(setting["ef"])
        rows: np.ndarray = self.index.knn_query(queries, K)[0].astype(np.int64)
        return rows


class USearch(Engine):
    """Half-precision rows, its leanest setting that keeps recall."""

    entry = "usearch.bin"

    def load(self) -> None:
        from usearch.index import Index

        self.make = Index

    def build(self, folder: Path, vectors: np.ndarray) -> None:
        index = self.make(ndim=vectors.shape[1], metric="ip", dtype="f16", connectivity=LINKS, expansion_add=EFFORT)
        for number, block in enumerate(blocks(vectors)):
            index.add(np.arange(len(block)) + 50_000 * number, block)
        index.save(str(folder / self.entry))

    def open(self, folder: Path) -> None:
        self.index = self.make.restore(str(folder / self.entry), view=self.disk)

    def search(self, queries: np.ndarray, setting: Setting) -> np.ndarray:
        self.index.expansion_search = setting["ef"]
        keys = self.index.search(queries, K).keys
        return np.asarray(keys, dtype=np.int64).reshape(len(queries), K)


class USearchView(USearch):
    """The same file mapped instead of read."""

    disk = True


class LanceDB(Engine):
    """IVF-PQ of as many lists and bytes as ours, rows kept as float16 and refined with."""

    disk, entry = True, "lancedb"

    def load(self) -> None:
        os.environ.setdefault("LANCE_LOG", "error")
        os.environ.setdefault("RUST_LOG", "error")
        import lancedb
        import pyarrow

        self.lancedb, self.pyarrow = lancedb, pyarrow

    def build(self, folder: Path, vectors: np.ndarray) -> None:
        pa, dim = self.pyarrow, vectors.shape[1]
        schema = pa.schema([("id", pa.int64()), ("vector", pa.list_(pa.float16(), dim))])

        def batches() -> Iterator[Any]:
            for number, block in enumerate(blocks(vectors)):
                ids = pa.array(np.arange(len(block)) + 50_000 * number)
                cells = pa.FixedSizeListArray.from_arrays(pa.array(block.astype(np.float16).reshape(-1)), dim)
                yield pa.record_batch([ids, cells], schema=schema)

        reader = pa.RecordBatchReader.from_batches(schema, batches())
        table = self.lancedb.connect(folder / self.entry).create_table("rows", data=reader, mode="overwrite")
        lists = list_count(len(vectors))
        table.create_index("dot", num_partitions=lists, num_sub_vectors=dim // 4, vector_column_name="vector")

    def open(self, folder: Path) -> None:
        self.table = self.lancedb.connect(folder / self.entry).open_table("rows")

    def curve(self) -> list[list[Setting]]:
        return [[{"nprobes": n, "refine": 10} for n in (64, 128, 256)]]  # slow: a longer sweep takes minutes

    def search(self, queries: np.ndarray, setting: Setting) -> np.ndarray:
        sought = queries.astype(np.float16)
        query = self.table.search(list(sought) if len(sought) > 1 else sought[0], vector_column_name="vector")
        query = query.metric("dot").nprobes(setting["nprobes"]).refine_factor(setting["refine"]).limit(K)
        found = query.select(["id", "_distance"]).to_arrow()
        ids = np.full((len(queries), K), -1, dtype=np.int64)
        rows = found["id"].to_numpy()
        number = found["query_index"].to_numpy() if len(sought) > 1 else np.zeros(len(rows), dtype=np.int64)
        for place in range(len(queries)):
            mine = rows[number == place][:K]
            ids[place, : len(mine)] = mine
        return ids


class MilvusLite(Engine):
    """HNSW: it has no product quantisation."""

    disk, entry = True, "milvus.db"

    def load(self) -> None:
        import milvus_lite  # noqa: F401
        import pymilvus

        self.pymilvus = pymilvus

    def build(self, folder: Path, vectors: np.ndarray) -> None:
        client, types = self.pymilvus.MilvusClient(str(folder / self.entry)), self.pymilvus.DataType
        schema = client.create_schema(auto_id=False)
        schema.add_field("id", types.INT64, is_primary=True)
        schema.add_field("vector", types.FLOAT_VECTOR, dim=vectors.shape[1])
        client.create_collection("rows", schema=schema)
        for number, block in enumerate(blocks(vectors, 2_000)):
            client.insert("rows", [{"id": 2_000 * number + at, "vector": row} for at, row in enumerate(block)])
        client.flush("rows", timeout=7200)
        index = client.prepare_index_params()
        how = {"M": LINKS, "efConstruction": EFFORT}
        index.add_index("vector", index_type="HNSW", metric_type="IP", params=how)
        client.create_index("rows", index, timeout=7200)  # a call that times out is sent again, and refused
        client.load_collection("rows", timeout=7200)
        client.close()

    def open(self, folder: Path) -> None:
        self.client = self.pymilvus.MilvusClient(str(folder / self.entry))
        self.client.load_collection("rows")

    def search(self, queries: np.ndarray, setting: Setting) -> np.ndarray:
        how = {"metric_type": "IP", "params": setting}
        found = self.client.search("rows", data=list(queries), limit=K, search_params=how, anns_field="vector")
        ids = np.full((len(queries), K), -1, dtype=np.int64)
        for place, hits in enumerate(found):
            ids[place, : len(hits)] = [hit["id"] for hit in hits]
        return ids


ENGINES: dict[str, type[Engine]] = {
    "ours": Ours,
    "ours-pq8": OursPQ8,
    "faiss-ivfpq": FaissIVFPQ,
    "faiss-exact": FaissExact,
    "faiss-hnsw": FaissHNSW,
    "hnswlib": HNSWLib,
    "usearch": USearch,
    "usearch-view": USearchView,
    "lancedb": LanceDB,
    "milvus-lite": MilvusLite,
}
