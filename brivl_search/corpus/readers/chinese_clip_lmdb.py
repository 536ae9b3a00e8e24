"""Chinese-CLIP's LMDB layout, as its build_lmdb_dataset.py writes it. Images are read where they lie.

    lmdb/SPLIT/imgs    image id -> base64 of the image file; num_images
    lmdb/SPLIT/pairs   "0", "1", ... -> pickle of (image_id, text_id, text); num_samples

The pickles are read by `safe_pickle`, which runs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from brivl_search.corpus import safe_pickle
from brivl_search.corpus.captions import CaptionLine
from brivl_search.corpus.containers import lmdb_imgs
from brivl_search.corpus.containers.place import SEPARATOR, Place
from brivl_search.corpus.fields import scalars
from brivl_search.corpus.readers.base import Choice, Reader, caption, named
from brivl_search.corpus.text import BadLine
from brivl_search.corpus.walk import ImageFile, Skipped
from brivl_search.display import printable
from brivl_search.errors import CorpusError

MAX_PAIR_BYTES = 1 << 20


class ChineseClipLmdbReader(Reader):
    name = "chinese-clip-lmdb"
    about = "Chinese-CLIP's LMDB: lmdb/SPLIT/imgs and lmdb/SPLIT/pairs"
    where_images_lie = "are inside its LMDB"

    def __init__(self, path: str, choice: Choice) -> None:
        super().__init__(path, choice)
        folders = self._folders(self.path)
        if not folders:
            raise CorpusError(f"{printable(self.path)} is not laid out like this: {self.about}")
        self.check_split(map(os.path.basename, folders))
        self.folders = [folder for folder in folders if self.wanted_split(os.path.basename(folder))]

    @staticmethod
    def _folders(path: str) -> list[str]:
        """Folders with an `imgs` LMDB: this one, or those in it or in its lmdb/."""
        if not os.path.isdir(path):
            return []
        if lmdb_imgs.is_lmdb(os.path.join(path, "imgs")):
            return [path]
        for parent in (path, os.path.join(path, "lmdb")):
            names = sorted(os.listdir(parent)) if os.path.isdir(parent) else []
            found = [os.path.join(parent, name) for name in names]
            if found := [folder for folder in found if lmdb_imgs.is_lmdb(os.path.join(folder, "imgs"))]:
                return found
        return []

    @classmethod
    def recognises(cls, path: str) -> bool:
        return bool(cls._folders(path))

    def images(self) -> Iterator[ImageFile | Skipped]:
        for folder in self.folders:
            imgs = os.path.join(folder, "imgs")
            self.covers.append(imgs + SEPARATOR)
            try:
                mtime_ns = lmdb_imgs.mtime_ns(imgs)
                for key, value in lmdb_imgs.items(imgs, whole=0):
                    size = value if isinstance(value, int) else len(value)
                    try:
                        name = key.decode("utf-8")
                        if "\0" in name:
                            raise ValueError
                    except ValueError:
                        yield Skipped(imgs + SEPARATOR + key.hex(), "bad id", "it is not printable UTF-8")
                        continue
                    place = Place(imgs, "lmdb", size=size, key=key, mtime_ns=mtime_ns)
                    yield ImageFile(imgs + SEPARATOR + name, size, mtime_ns, place)
            except OSError as error:
                raise CorpusError(f"cannot read {printable(imgs)}: {error.strerror or error}") from error

    def lines(self) -> Iterator[CaptionLine | BadLine]:
        for folder in self.folders:
            if lmdb_imgs.is_lmdb(os.path.join(folder, "pairs")):
                yield from named(self._lines(folder), self.choice.fields)

    def _lines(self, folder: str) -> Iterator[CaptionLine | BadLine]:
        pairs, imgs = os.path.join(folder, "pairs"), os.path.join(folder, "imgs")
        split = os.path.basename(folder)
        for count, (key, value) in enumerate(lmdb_imgs.items(pairs, whole=MAX_PAIR_BYTES), start=1):
            number = int(key) + 1 if key.isdigit() and len(key) < 19 else count
            try:
                if isinstance(value, int):
                    raise ValueError(f"{value:,} bytes, the limit is {MAX_PAIR_BYTES:,}")
                pair = safe_pickle.loads(value)
                if not isinstance(pair, tuple) or len(pair) != 3:
                    raise ValueError("not a tuple (image_id, text_id, text)")
                image, identity, text = pair  # pickled as they were in the JSON: numbers or strings
                fields = scalars({"image_id": image, "text_id": identity, "split": split})
                if isinstance(image, (bool, float)) or not {"image_id", "text_id"} <= fields.keys():
                    raise ValueError("an image_id or text_id that is no number and no short string")
                del fields["image_id"]
                text = caption(text)
            except safe_pickle.UnsafePickleError as error:
                yield BadLine(pairs, number, "a pickle of more than plain values", str(error))
            except ValueError as error:
                yield BadLine(pairs, number, str(error))
            else:
                yield CaptionLine(pairs, number, f"{imgs}{SEPARATOR}{image}", (("", text),), fields)
