"""Indexes as older versions wrote them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from brivl_search.index import MODALITIES, catalog
from brivl_search.index.store import Environment


def make_older(index: Path) -> None:
    """Turns an index into one of format 3: no sources, no moves, no identity, no origins."""
    environment = Environment(catalog.catalog_path(index), writable=True, lock=True)

    def change(txn: Any) -> None:
        body = json.loads(txn.get(catalog.META))
        roots = [[source["given"], source["path"]] for source in body.pop("sources") if source["kind"] == "folder"]
        for name in ("moves", "identity"):
            body.pop(name)
        txn.put(catalog.META, json.dumps({**body, "format_version": 3, "roots": roots, "datasets": {}}).encode())
        for modality in MODALITIES:
            for key, value in list(catalog.scan_items(txn, modality)):
                entry = catalog.Entry.unpack(key, value)
                txn.put(key, replace(entry, origin="unknown").pack(key))

    environment.write(change)
    environment.close()
