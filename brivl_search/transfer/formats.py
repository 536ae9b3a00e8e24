"""The formats of an export: npy, parquet and JSON lines.

An export is a folder: export.json (encoder, fingerprint, dim, format) and, for each modality that has rows,

    npy       {image|text}.npy, float16 (rows, dim), and {image|text}.jsonl, line k belonging to row k
    parquet   {image|text}.parquet: the columns of a line, and `vector`, a fixed-size list of float16
    jsonl     {image|text}.jsonl with the vector in each line

A line is {"key", "content", "size", "mtime_ns", "origin", "record"}. `import_folder` reads all three back. Where the
index corrects hubs, the references lie beside (`CORRECTION`); the numbers of rows are computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

from numpy.typing import NDArray

from brivl_search.errors import DependencyError, install_hint
from brivl_search.index import Item

Kind = Literal["npy", "parquet", "jsonl"]
Rows = Iterator[tuple[Item, NDArray[Any]]]
Advance = Callable[[int], None]
CORRECTION = "hub_correction.safetensors"
BLOCK = 8192  # rows read, normalised and staged together


def arrow_modules() -> tuple[Any, Any]:
    """`pyarrow` and `pyarrow.parquet`.

    Raises:
        DependencyError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DependencyError(f"parquet needs pyarrow: {install_hint('parquet')}") from error
    return pyarrow, pyarrow.parquet
