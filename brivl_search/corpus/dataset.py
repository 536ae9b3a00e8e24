"""Images with their captions, whole and checked, for evaluation: any layout that `readers` knows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from brivl_search.corpus.captions import DEFAULT_FIELDS
from brivl_search.corpus.encodings import check_encoding
from brivl_search.corpus.readers import open_dataset
from brivl_search.corpus.readers.base import Choice
from brivl_search.corpus.text import BadLine
from brivl_search.corpus.walk import ImageFile
from brivl_search.display import printable
from brivl_search.errors import CorpusError, UsageError

TEXT_IDS = ("text_id", "query_id", "id", "sentid")  # what formats call the id of a caption


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images with their captions, for evaluation.

    Attributes:
        folder: the folder, or the folder of the file, that was named; absolute.
        fields: the fields the captions were taken from.
        images: absolute paths (or CONTAINER::MEMBER), in order of first mention, each once.
        captions: captions[i] belong to images[i]; never empty.
        without_captions: images left out because no line gives them a caption in `fields`; generated ones are none.
        files: files[i] is where images[i] is read from; hand these to `decode_all`.
        text_ids: text_ids[i][j] is the id that the dataset gives captions[i][j], "" where it gives none.
        format: name of the reader.
    """

    folder: str
    fields: tuple[str, ...]
    images: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    without_captions: int = 0
    files: tuple[ImageFile, ...] = ()
    text_ids: tuple[tuple[str, ...], ...] = ()
    format: str = "captions"

    def pairs(self) -> tuple[list[str], list[int]]:
        """All captions in order, and for each the position of its image in `images`."""
        texts = [text for group in self.captions for text in group]
        owners = [i for i, group in enumerate(self.captions) for _ in group]
        return texts, owners

    def queries(self) -> tuple[list[str], list[list[int]], list[str]]:
        """Each text once: a text that the dataset gives to several images (same id) is one query with several partners.

        Returns:
            Texts in order, for each the positions of its images in `images`, and its id ("" where there is none).
        """
        texts: list[str] = []
        partners: list[list[int]] = []
        names: list[str] = []
        numbers: dict[str, int] = {}
        for image, (group, ids) in enumerate(zip(self.captions, self.text_ids, strict=True)):
            for text, name in zip(group, ids, strict=True):
                if name and numbers.setdefault(name, len(texts)) < len(texts):
                    partners[numbers[name]].append(image)
                    continue
                texts.append(text)
                partners.append([image])
                names.append(name)
        return texts, partners, names


def load_dataset(
    folder: Path | str,
    fields: str | Sequence[str] | None = None,
    *,
    format: str | None = None,
    split: str | None = None,
    images: Path | str | None = None,
    encoding: str | None = None,
) -> Dataset:
    """Read a dataset strictly, for evaluation.

    Args:
        folder: a folder or a file of a layout that `readers` knows; FOLDER/captions.jsonl goes before any other.
        fields: one field or several; by default all captions (of captions.jsonl `zh`, `en` and `captions`).
        format: name of the layout; None: it is recognised.
        split: only this one, such as "test"; None: all.
        images: folder of the images; None: the customary places beside the annotations.
        encoding: of the annotation files; None: UTF-8.

    Raises:
        UsageError: nothing there, a layout that is not known or ambiguous, no such split or encoding, or a field that
            no line has.
        CorpusError: a bad line or an image that is not there, as file:line.
    """
    wanted = (fields,) if isinstance(fields, str) else tuple(fields or ())
    choice = Choice(split, None if images is None else os.fspath(images), wanted or None, check_encoding(encoding))
    reader = open_dataset(folder, format, choice)
    files: dict[str, ImageFile] = {}
    missing: dict[str, str] = {}
    for one in reader.images():
        if isinstance(one, ImageFile):
            files[one.path] = one
        else:
            missing[one.path] = one.reason
    groups: dict[str, list[tuple[str, str]]] = {}
    found: set[str] = set()
    true: set[str] = set()  # fields with captions that a person wrote
    generated = False
    for line in reader.lines():
        if isinstance(line, BadLine):
            raise CorpusError(str(line))
        if line.image not in files:
            what = {
                "no such file": "does not exist",
                "not a regular file": "is not a file",
                "": "is not in the dataset",
            }
            reason = missing.get(line.image, "")
            where = f"{printable(line.file)}:{line.line}"
            raise CorpusError(f"{where}: image {printable(line.image)} {what.get(reason) or 'is ' + reason}")
        found.update(name for name, _ in line.texts)
        group = groups.setdefault(line.image, [])
        if line.captioner:
            generated = True
            continue
        true.update(name for name, _ in line.texts)
        earlier = set() if reader.repeats_count else {text for text, _ in group}
        name = next((str(line.fields[key]) for key in TEXT_IDS if key in line.fields), "")
        group.extend((text, name) for text in line.captions if text not in earlier)
    absent = [name for name in wanted if name not in found]
    if absent:
        there = ", ".join(reader.field_names()) or "none"
        shown = absent[0].encode("utf-8", "backslashreplace").decode()
        raise UsageError(f"no line of {printable(reader.shown)} has the field {shown!r}; fields there: {there}")
    kept = {image: group for image, group in groups.items() if group}
    if not kept:
        held = "generated captions alone, which are no truth" if generated else "no captions"
        raise CorpusError(f"{printable(reader.shown)} holds {held}")
    used = wanted or tuple(sorted(true, key=lambda name: (*DEFAULT_FIELDS, name).index(name)))
    return Dataset(
        reader.path if os.path.isdir(reader.path) else os.path.dirname(reader.path),
        used,
        tuple(kept),
        tuple(tuple(text for text, _ in group) for group in kept.values()),
        (len(groups) if reader.name == "captions" else len(files)) - len(kept),
        tuple(files[image] for image in kept),
        tuple(tuple(name for _, name in group) for group in kept.values()),
        reader.name,
    )
