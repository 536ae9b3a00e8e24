"""Adding to the index and removing from it while it answers: one change at a time, each published in one step."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from brivl_search.corpus.decode_pool import default_workers
from brivl_search.corpus.images import PixelSpec
from brivl_search.errors import UsageError
from brivl_search.ingest import maintenance
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.report import Silent
from brivl_search.ingest.run import add
from brivl_search.server.answers.items import Item
from brivl_search.server.answers.uploads import kept, kept_path, mark, settle, sweep
from brivl_search.server.protocol import keys
from brivl_search.server.protocol.problems import Refusal
from brivl_search.server.workers.batching import Overloaded
from brivl_search.server.workers.service import Service, Towers

T = TypeVar("T")
log = logging.getLogger("brivl_search.server")

_WAITING = 16  # changes; more are refused


class Changes:
    """The one who writes. Each method raises what `ingest.run.add` and `maintenance.remove` do, and Refusal."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = asyncio.Lock()
        self._waiting = 0

    async def add_paths(self, paths: Sequence[str]) -> dict[str, Any]:
        """`schemas.AddAnswer`. The paths must lie under the index's folders, or the folder of uploads."""
        if not paths:
            raise Refusal(400, "nothing to add: give `paths`, or upload `image` files", "nothing_to_add")
        absolute = [await asyncio.to_thread(self._permitted, path) for path in paths]
        return await self._alone(lambda: self._add(absolute))

    async def add_uploads(self, uploads: Sequence[bytes]) -> dict[str, Any]:
        """`schemas.AddAnswer`. They are decoded first, so that nothing is kept that is no picture."""
        folder = self._service.settings.upload_dir
        if folder is None:
            raise Refusal(403, "this server keeps no uploads: its `upload_dir` names no folder", "no_uploads")
        for data in uploads:
            await self._service.decoders.pixels(data, PixelSpec(8))
        return await self._alone(lambda: self._add_kept(folder, uploads))

    async def remove(self, item: Item) -> dict[str, Any]:
        """`schemas.RemoveAnswer`. A file that was uploaded is deleted, any other is left alone."""
        return await self._alone(lambda: self._remove(item))

    async def _alone(self, change: Callable[[], T]) -> T:
        if self._waiting >= _WAITING:
            raise Overloaded
        self._waiting += 1
        try:
            async with self._lock:
                return await asyncio.to_thread(change)
        finally:
            self._waiting -= 1

    def _permitted(self, path: str) -> str:
        """The absolute path. What links lead to must lie under the folders too."""
        absolute = os.path.abspath(path)
        real = os.path.realpath(absolute)
        folders = [root for _, root in self._service.reader.info.roots]
        if self._service.settings.upload_dir is not None:
            folders.append(os.fspath(self._service.settings.upload_dir))
        if not any(_inside(real, os.path.realpath(folder)) and _inside(absolute, folder) for folder in folders):
            message = f"{path} does not lie under a folder of the index: add it with brivl-search add"
            raise Refusal(403, message, "outside", path=path)
        return absolute

    def _add_kept(self, folder: Path, uploads: Sequence[bytes]) -> dict[str, Any]:
        """Kept only when it is this change's turn: one before it may remove the same picture, and its file with it."""
        with kept(folder, uploads, self.holds) as paths:
            return self._add(paths)

    def holds(self, path: str) -> bool:
        """Whether the index holds an image of this path."""
        self._service.engine.refresh()
        return self._service.reader.find("image", path) is not None

    def sweep(self) -> None:
        """Clears up what a killed server left in the folder of uploads."""
        settings = self._service.settings
        if settings.upload_dir is not None and not settings.read_only:
            deleted = sweep(settings.upload_dir, self.holds)
            if deleted:
                log.info("%d uploads that were never taken in are deleted", deleted)

    def _add(self, paths: Sequence[str]) -> dict[str, Any]:
        settings = self._service.settings
        options = BuildOptions(
            workers=min(2, default_workers()),
            batch_size=16,
            max_megapixels=settings.max_megapixels,
            decode_timeout_s=settings.decode_timeout_s,
        )
        report = add(paths, self._service.reader.directory, Towers(self._service), options, Silent())
        self._service.engine.refresh()
        return {
            "generation": self._service.reader.info.generation,
            "embedded": report.embedded,
            "reused": report.reused,
            "unchanged": report.unchanged,
            "captions": report.captions,
            "keys": [keys.encode("image", path) for path in paths if self._service.reader.find("image", path)],
            "skipped": [{"path": one.path, "reason": one.reason, "detail": one.detail} for one in report.skipped],
        }

    def _remove(self, item: Item) -> dict[str, Any]:
        folder = self._service.settings.upload_dir
        uploaded = (
            item.modality == "image" and folder is not None and item.key == kept_path(folder, item.sha256, item.key)
        )
        if uploaded and os.path.exists(item.key):
            with contextlib.suppress(OSError):  # a full disk: what is removed need not be marked to be deleted
                mark(item.key)
        try:
            report = maintenance.remove(self._service.reader.directory, keys=[item.key])
        except UsageError:  # another client was faster
            raise Refusal(404, "no item of the index has this key", "no_such_item") from None
        finally:
            self._service.engine.refresh()
            if uploaded:
                settle(item.key, self.holds(item.key))
        return {
            "generation": self._service.reader.info.generation,
            "images": report.images,
            "captions": report.captions,
        }


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(os.path.join(folder, ""))
