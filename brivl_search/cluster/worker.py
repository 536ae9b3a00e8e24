"""What runs on the hosts: an actor that decodes and embeds one unit after the other and writes what came of it.

Names of units come in, numbers go out: neither work lists nor vectors pass through Ray's object store.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search import __version__
from brivl_search.cluster.units import Unit, UnitFolder
from brivl_search.corpus.decode_pool import Decoded, decode_all
from brivl_search.embedding.batches import Embedded, encode_decoded, first_of_each, in_batches, look_ahead
from brivl_search.encoders import load_encoder
from brivl_search.errors import BrivlSearchError, system_error

TOKEN = "token"  # a file that only the storage of this driver has


@dataclass(frozen=True)
class Job:
    """What all workers of a build do.

    Attributes:
        folder: of the units, on storage that all hosts see.
        token: content of `TOKEN` in it.
        samples: files of the sources of which a host must see one.
        encoder: name, as `load_encoder` takes it.
        load: its other arguments.
        fingerprint, dim: of the driver's encoder.
        batch_size: pictures a forward pass.
        timeout_s: of decoding.
        version: of brivl-search.
    """

    folder: str
    token: str
    samples: tuple[str, ...]
    encoder: str
    load: dict[str, Any]
    fingerprint: str
    dim: int
    batch_size: int
    timeout_s: float
    version: str = __version__


class Worker:
    """One process of a host. Problems come back as text: Ray's errors are left for what Ray finds out.

    Args:
        job: of the build.
        workers: decoding processes.
    """

    def __init__(self, job: Job, workers: int) -> None:
        self.job, self.workers = job, workers
        self.units = UnitFolder(Path(job.folder), job.dim)
        self.encoder: Any = None

    def start(self) -> str:
        """Loads the encoder; returns why this host cannot do the job, or nothing."""
        job = self.job
        if __version__ != job.version:
            return f"it has brivl-search {__version__}, not {job.version}: install the same version on all hosts"
        try:
            seen = (Path(job.folder) / TOKEN).read_text() == job.token
        except OSError:
            seen = False
        if not seen:
            return f"it does not see {job.folder}: put the index on storage that all hosts mount at the same path"
        if job.samples and not any(map(os.path.exists, job.samples)):
            return (
                f"it does not see {job.samples[0]}: put the pictures on storage that all hosts mount at the same path"
            )
        try:
            self.encoder = load_encoder(job.encoder, **job.load)
        except BrivlSearchError as error:
            return f"it cannot load the encoder {job.encoder} ({error}): put it where all hosts see it at the same path"
        if self.encoder.fingerprint != job.fingerprint:
            return (
                f"its encoder {job.encoder} is another one (fingerprint {self.encoder.fingerprint[:12]}, not "
                f"{job.fingerprint[:12]}): give all hosts the same files and the same kind of processor"
            )
        try:
            self.encoder.warm_up()
        except (BrivlSearchError, RuntimeError, MemoryError) as error:
            return f"its encoder does not start ({_line(error)})"
        return ""

    def embed(self, name: str) -> tuple[int, str]:
        """Does the unit of this name, unless it is done already.

        Returns:
            (contents that were embedded, what went wrong or nothing).
        """
        try:
            if self.units.is_done(name):
                return 0, ""
            unit = self.units.get(name)
            rows = list(self._rows(unit))
            self.units.write(name, unit.limit, rows)
            return sum(row.vector is not None for row in rows), ""
        except Exception as error:
            return 0, _line(error)

    def _rows(self, unit: Unit) -> Iterator[Embedded]:
        known = {file.path: hashes for file, hashes in zip(unit.files, unit.known, strict=True)}
        decoded = decode_all(
            unit.files,
            self.encoder.pixels,
            workers=self.workers,
            max_megapixels=unit.limit,
            timeout_s=self.job.timeout_s,
            ahead=look_ahead(self.job.batch_size),
            known_hashes=lambda file: known[file.path],
        )
        seen: set[str] = set()
        fresh: set[str] = set()

        def counts(one: Decoded) -> bool:
            if one.pixels is None or one.sha256 in seen:
                return False
            seen.add(one.sha256)
            fresh.add(one.sha256)
            return True

        for batch in in_batches(decoded, self.job.batch_size, counts):
            first = first_of_each(batch, fresh)
            made = encode_decoded(self.encoder, list(first.values()))
            vectors: dict[str, NDArray[np.float32]] = dict(zip(first, made, strict=True))
            fresh.clear()
            for one in batch:
                yield Embedded(replace(one, pixels=None), vectors.pop(one.sha256, None))


def _line(error: BaseException) -> str:
    known = error if isinstance(error, BrivlSearchError) else system_error(error)
    text = str(known) if known is not None else f"{type(error).__name__}: {error}"
    return f"{socket.gethostname()}: {' '.join(text.split())[:500]}"
