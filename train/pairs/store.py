"""What a preparation remembers beside its output: how far it came, hashes seen, and what each rule removed.

SQLite, so that memory is bounded and one transaction joins all of it; a kill at any moment leaves the last transaction.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

from brivl_search.errors import UsageError
from train.pairs.images import MASK, bands, probes

EXAMPLES = 5
_CACHE_KIB = 256 << 10
_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hashes (band INTEGER, hash INTEGER, PRIMARY KEY (band, hash)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS texts (hash INTEGER PRIMARY KEY, count INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS pictures (hash INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS counts (source TEXT, what TEXT, count INTEGER, PRIMARY KEY (source, what)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS examples (what TEXT, number INTEGER, text TEXT, PRIMARY KEY (what, number)) WITHOUT ROWID;
"""


def _signed(code: int) -> int:
    """SQLite's integers are signed."""
    return code - (1 << 64) if code >> 63 else code


def short_hash(text: str) -> int:
    """64 bits of a text, signed."""
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big", signed=True
    )


class PairStore:
    """One preparation's memory. Nothing is on disk for good before `commit`."""

    def __init__(self, path: Path, identity: str) -> None:
        """Opens or makes it.

        Raises:
            UsageError: it belongs to other sources or rules.
        """
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        self.db.executescript(_SCHEMA)
        self.db.execute("BEGIN")
        if self.get("identity", identity) != identity:
            raise UsageError(f"{path.parent} was begun with other sources or rules: give another folder, or empty it")
        self.set("identity", identity)
        self.counts: Counter[tuple[str, str]] = Counter()
        self._examples = Counter(dict(self.db.execute("SELECT what, count(*) FROM examples GROUP BY what")))

    def get(self, name: str, default: Any) -> Any:
        row = self.db.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else default

    def set(self, name: str, value: Any) -> None:
        self.db.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (name, json.dumps(value)))

    def count(self, source: str, what: str, example: str = "") -> None:
        """One more of `what`, a rule's name or "records", "kept", ...; the first examples are kept."""
        self.counts[source, what] += 1
        if example and self._examples[what] < EXAMPLES:
            self.db.execute("INSERT INTO examples VALUES (?, ?, ?)", (what, self._examples[what], example))
            self._examples[what] += 1

    def commit(self, position: Any, written: int) -> None:
        """What follows starts at `position` of the input and byte `written` of the output."""
        self.db.executemany(
            "INSERT INTO counts VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
            [(source, what, count) for (source, what), count in self.counts.items()],
        )
        self.counts.clear()
        self.set("position", position)
        self.set("written", written)
        self.db.execute("COMMIT")
        self.db.execute("BEGIN")

    def near_duplicate(self, code: int, distance: int) -> bool:
        """Whether a picture was added whose hash differs in at most `distance` bits."""
        keys = probes(code, distance)
        question = f"SELECT hash FROM hashes WHERE band IN ({','.join('?' * len(keys))})"
        return any(((seen ^ code) & MASK).bit_count() <= distance for (seen,) in self.db.execute(question, keys))

    def add_picture(self, code: int) -> None:
        self.db.executemany(
            "INSERT OR IGNORE INTO hashes VALUES (?, ?)", [(band, _signed(code)) for band in bands(code)]
        )

    def times_seen(self, text: str) -> int:
        """How often this text came before; this time is counted."""
        row = self.db.execute(
            "INSERT INTO texts VALUES (?, 1) ON CONFLICT DO UPDATE SET count = count + 1 RETURNING count",
            (short_hash(text),),
        ).fetchone()
        return int(row[0]) - 1

    def is_new_picture(self, name: str) -> bool:
        """Whether a path or address comes for the first time."""
        return self.db.execute("INSERT OR IGNORE INTO pictures VALUES (?)", (short_hash(name),)).rowcount == 1

    def report(self) -> tuple[dict[str, dict[str, int]], dict[str, list[str]]]:
        """(source → what → count), (what → examples)."""
        sources: dict[str, dict[str, int]] = {}
        for source, what, count in self.db.execute("SELECT source, what, count FROM counts ORDER BY source, what"):
            sources.setdefault(source, {})[what] = count
        examples: dict[str, list[str]] = {}
        for what, text in self.db.execute("SELECT what, text FROM examples ORDER BY what, number"):
            examples.setdefault(what, []).append(text)
        return sources, examples

    def close(self) -> None:
        self.db.execute("ROLLBACK")
        self.db.close()
