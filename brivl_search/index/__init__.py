"""The index on disk: sealed LMDB shards holding IVF-PQ, float16 rows and records, and a catalog that names them.

    writer   stage items and vectors, commit       reader   open a generation, search it
    staging  what a killed build leaves behind     search   candidates → exact scores → merge
    commit   plan, seal, publish                   tune     nprobe and rerank to a recall target
    shard    one sealed file                       verify   is everything what it says it is?
    catalog  the one file that changes             meta     its small facts
    ivfpq    everything FAISS                      store    LMDB with care
    sources  what an index covers                  moves    where its roots are now
    snapshot the catalog before a build            lock     one writer at a time
    hubs     a number a row that corrects hubs

Importing this imports neither faiss nor torch. The format is described in indexes/README.md.
"""

from brivl_search.index.reader import IndexReader
from brivl_search.index.types import (
    FORMAT_VERSION,
    MODALITIES,
    Codec,
    CommitReport,
    EncoderInfo,
    IndexInfo,
    IndexType,
    Item,
    ItemState,
    Modality,
    ModalityInfo,
    ModalityReport,
    Origin,
    SearchResult,
    ShardInfo,
    Tuning,
    VerifyReport,
)
from brivl_search.index.verify import verify
from brivl_search.index.writer import IndexWriter

__all__ = [
    "FORMAT_VERSION",
    "MODALITIES",
    "Codec",
    "CommitReport",
    "EncoderInfo",
    "IndexInfo",
    "IndexReader",
    "IndexType",
    "IndexWriter",
    "Item",
    "ItemState",
    "Modality",
    "ModalityInfo",
    "ModalityReport",
    "Origin",
    "SearchResult",
    "ShardInfo",
    "Tuning",
    "VerifyReport",
    "verify",
]
