"""Changing an index that is there: forgetting items, moving sources, tidying shards, tuning, mending.

Each is one atomic commit. Adding is `run.add`; bringing folders in step is `run.build_index`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from brivl_search.corpus.containers.place import below
from brivl_search.corpus.names import nfc, spellings
from brivl_search.display import printable
from brivl_search.encoders import hub_corrections
from brivl_search.errors import UsageError
from brivl_search.index import MODALITIES, Codec, CommitReport, IndexReader, IndexWriter, Modality, Tuning
from brivl_search.index.keys import captions_of
from brivl_search.index.snapshot import Snapshot
from brivl_search.ingest.moved import at, check_moves
from brivl_search.ingest.tuning import LEAST_CAPTIONS, TUNING_QUERIES, Encode, tuning_queries

Note = Callable[[str], None]


@dataclass(frozen=True)
class RemoveReport:
    """What was removed; removing an image removes its captions.

    `comes_back` names what the next sync takes in again, because it is there and a folder of the index holds it.
    """

    images: int
    captions: int
    commit: CommitReport
    comes_back: tuple[str, ...] = ()


def remove(
    directory: Path,
    *,
    paths: Sequence[Path | str] = (),
    under: Sequence[Path | str] = (),
    keys: Sequence[str] = (),
    progress: Note | None = None,
) -> RemoveReport:
    """Forgets items. The files themselves are not touched, and need not exist any more.

    Args:
        directory: the index.
        paths: image files, folders (then as `under`), and sources of the index, which are forgotten too: no later
            `sync` looks for them.
        under: folders; all that was indexed below them, at any depth.
        keys: keys as `import` was given them, or exact paths.
        progress: told in one line each what is going on.

    Raises:
        UsageError: something named is not in the index; nothing is removed.
        IndexMissingError: there is no index.
    """
    if not (paths or under or keys):
        raise UsageError("nothing to remove: give paths, `under` or `keys`")
    with IndexWriter.existing(directory) as writer:
        gone: dict[Modality, set[str]] = {modality: set() for modality in MODALITIES}
        for path in paths:
            absolute = _known_name(writer, os.path.abspath(path))
            found = _one(writer, absolute) if writer.known("image", absolute) else _below(writer, absolute)
            source = _forget_source(writer, absolute, gone)
            _take(gone, found, "" if source else f"{printable(os.fspath(path))} is not in the index")
        for folder in under:
            found = _below(writer, _known_name(writer, os.path.abspath(folder)))
            _take(gone, found, f"the index holds nothing under {printable(os.fspath(folder))}")
        for key in keys:
            _take(gone, _one(writer, key), f"no item of the index has the key {printable(key)!r}")
        for modality, names in gone.items():
            for name in sorted(names):
                writer.remove(modality, name)
        _forget_empty(writer)
        commit = writer.commit(progress=progress)
        back = tuple(os.fspath(path) for path in (*paths, *under) if _comes_back(writer, os.path.abspath(path)))
        return RemoveReport(len(gone["image"]), len(gone["text"]), commit, back)


def _known_name(writer: IndexWriter, path: str) -> str:
    """A path as the index calls it, which may be by another link or spelling; as given if the index has none."""
    folder, name = os.path.split(path)
    given = list(dict.fromkeys([path, os.path.join(os.path.realpath(folder), name)]))
    for source in writer.sources:
        real = os.path.realpath(source.path)
        given += [
            source.path + one[len(real) :]
            for one in given
            if real != source.path and (one + os.sep).startswith(real + os.sep)
        ]
    names = [spelled for one in dict.fromkeys(given) for spelled in spellings(one)]
    for one in names:
        if _holds(writer, one):
            return one
    if path.isascii():
        return path
    wanted = {nfc(one) for one in given}  # a path may mix both spellings
    for modality in MODALITIES:
        for key in writer.keys_under(modality):
            there = key.partition("\0")[0]
            for end in _ends(there):
                if nfc(there[:end]) in wanted:
                    return there[:end]
    return path


def _holds(writer: IndexWriter, path: str) -> bool:
    """Whether something of the index is at a path or below it."""
    if any(source.path == path for source in writer.sources):
        return True
    return any(writer.known(m, path) is not None for m in MODALITIES) or next(_below(writer, path), None) is not None


def _ends(path: str) -> Iterator[int]:
    """Where the path ends, and where each folder or container in it does."""
    yield len(path)
    for end, letter in enumerate(path):
        if letter in ("/", os.sep) or path.startswith("::", end):
            yield end


def _comes_back(writer: IndexWriter, path: str) -> bool:
    """Will the next `sync` find it again?"""
    if not os.path.exists(path):
        return False
    for source in writer.sources:
        inside = os.path.relpath(path, source.path) if (path + os.sep).startswith(os.path.join(source.path, "")) else ""
        hidden = any(part.startswith(".") and part != "." for part in inside.split(os.sep))
        if source.kind == "folder" and inside and (not hidden or source.options.get("include_hidden")):
            return True
    return False


def _take(gone: dict[Modality, set[str]], found: Iterable[tuple[Modality, str]], complaint: str) -> None:
    some = False
    for modality, key in found:
        gone[modality].add(key)
        some = True
    if not some and complaint:
        raise UsageError(f"{complaint}: nothing was removed")


def _forget_source(writer: IndexWriter, path: str, gone: dict[Modality, set[str]]) -> bool:
    """Forgets the sources at a path or below it; says whether there were any.

    With a dataset go its images that no other source holds, and their captions. A caption file's captions stay until
    the next `sync`.
    """
    inside = os.path.join(path, "")
    left = [source for source in writer.sources if source.path != path and not source.path.startswith(inside)]
    leaving = [source for source in writer.sources if source not in left]
    held = tuple(one for source in left for one in (*source.covers, os.path.join(source.path, ""), source.path + "::"))
    for source in leaving:
        for cover in source.covers:
            for key, state in writer.states_under("image", cover):
                if state.origin in ("scan", "unknown") and not key.startswith(held):
                    for modality, name in _one(writer, key):
                        gone[modality].add(name)
    if leaving:
        writer.set_sources(left)
    return bool(leaving)


def _forget_empty(writer: IndexWriter) -> None:
    """Forgets folders of single files of which none is left."""

    def used(folder: str) -> bool:
        states = writer.states_under("image", os.path.join(folder, ""))
        return any(state.origin == "file" and os.path.dirname(key) == folder for key, state in states)

    left = [source for source in writer.sources if source.kind != "files" or used(source.path)]
    if len(left) != len(writer.sources):
        writer.set_sources(left)


def _one(writer: IndexWriter, key: str) -> Iterator[tuple[Modality, str]]:
    """An item and, if it is an image, its captions."""
    for modality in MODALITIES:
        if writer.known(modality, key) is not None:
            yield modality, key
    for text in writer.keys_under("text", captions_of(key)):
        yield "text", text


def _below(writer: IndexWriter, folder: str) -> Iterator[tuple[Modality, str]]:
    for modality in MODALITIES:
        for inside in below(folder):
            for key in writer.keys_under(modality, inside):
                yield modality, key


def move(
    directory: Path,
    old: Path | str,
    new: Path | str,
    *more: tuple[Path | str, Path | str],
    progress: Note | None = None,
) -> CommitReport:
    """Says where sources are now. No picture is read, and no row written again.

    Args:
        directory: the index.
        old: a source of the index, or a folder above several.
        new: where it is.
        more: further (old, new) pairs. All move at once, so two folders may have changed places.
        progress: told in one line each what is going on.

    Raises:
        UsageError: nothing of the index is at an old place; a new one is not there, is in the index already and stays
            there, or holds none of the files.
        IndexMissingError: there is no index.
    """
    moves = [(old, new), *more]
    with IndexWriter.existing(directory) as writer:
        pairs = check_moves(Snapshot.read(directory), [(os.fspath(old), os.fspath(new)) for old, new in moves])
        writer.move(pairs)
        given = {after: os.fspath(new) for (_, after), (_, new) in zip(pairs, moves, strict=True)}
        writer.set_sources(
            replace(source, given=given.get(source.path, source.path), present=True)
            if any(at(source.path, after) for after in given)
            else source
            for source in writer.sources
        )
        return writer.commit(progress=progress)


def compact(
    directory: Path,
    *,
    encode: Encode | None = None,
    codec: Codec | None = None,
    memory: int | None = None,
    correct_hubs: bool = True,
    progress: Note | None = None,
) -> CommitReport:
    """Merges small shards, drops removed rows, and trains the quantizer anew where the collection outgrew it.

    The hub correction that the user has measured for the encoder, if any, takes the place of the index's own.

    Args:
        directory: the index.
        encode: texts → vectors, to tune with where the index has no captions; None: such an index keeps its tuning,
            or gets a cautious one that was not measured.
        codec, memory: as of `IndexWriter`.
        correct_hubs: False drops the index's hub correction.
        progress: told in one line each what is going on.
    """
    with IndexWriter.existing(directory, codec=codec, memory=memory) as writer:
        correction = hub_corrections.saved(writer.encoder.fingerprint) if correct_hubs else None
        if correction is not None or not correct_hubs:
            writer.correct_hubs("image", correction)
        queries: dict[Modality, np.ndarray] = {}
        with IndexReader.open(directory) as reader:
            probed = [m for m in MODALITIES if reader.info.of(m).nlist]
        if probed:
            queries = tuning_queries(writer, encode or _no_texts)
            queries = {m: vectors for m, vectors in queries.items() if m in probed and (m == "text" or len(vectors))}
        return writer.commit(tuning_queries=queries, progress=progress, compact=True)


def _no_texts(texts: Sequence[str]) -> np.ndarray:
    """No text tower is at hand: an index with few captions is not tuned anew."""
    return np.zeros((0, 0), np.float32)


@dataclass
class TuneReport:
    """The setting found for each modality that is searched with IVF-PQ; `notes` are sentences for the user."""

    found: dict[Modality, Tuning] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def tune(
    directory: Path,
    *,
    recall: float = 0.99,
    queries: np.ndarray | None = None,
    progress: Note | None = None,
) -> TuneReport:
    """Measures IVF-PQ search against exact search, stores the fastest setting that reaches a recall@10.

    Args:
        directory: the index.
        recall: the target, above 0 and at most 1.
        queries: float32 (n, dim) to search images with; None: the index's captions. Texts are searched with the
            index's pictures. Where there is none of the other modality, rows themselves stand in.
        progress: told in one line each what is going on.

    Raises:
        UsageError: the target is no share, or both modalities are searched exactly anyway.
    """
    if not 0 < recall <= 1:
        raise UsageError(f"`recall` {recall:g}: give a share between 0 and 1, such as 0.99")
    report = TuneReport()
    with IndexWriter.existing(directory) as writer:
        with IndexReader.open(directory) as reader:
            for modality in MODALITIES:
                if not reader.info.of(modality).nlist or not reader.count(modality):
                    continue
                given, kind = _queries(writer, modality, queries, report.notes)
                if progress:
                    progress(f"tuning {modality} search with {len(given)} {kind} queries")
                found = reader.tune(modality, given, kind, recall)
                assert found is not None and found.recall is not None
                if found.recall < recall:
                    report.notes.append(f"{modality}: no setting reaches {recall:g}; the best has {found.recall:.4f}")
                report.found[modality] = found
                writer.retune(modality, found)
        if not report.found:
            raise UsageError(f"nothing to tune: search in {directory} is exact (below 9,984 rows, or asked for)")
        writer.commit(progress=progress)
    return report


def _queries(
    writer: IndexWriter, modality: Modality, given: np.ndarray | None, notes: list[str]
) -> tuple[np.ndarray, str]:
    if modality == "image" and given is not None:
        return given, "given"
    other: Modality = "text" if modality == "image" else "image"
    sample = writer.sample(other, TUNING_QUERIES)
    if len(sample) >= LEAST_CAPTIONS:
        return sample, "cross-modal"
    notes.append(
        f"{modality}: the index has {len(sample)} {other}s to use as queries, so its own rows stood in: they are "
        "easier to find than what people ask for; `queries` gives real ones"
    )
    return writer.sample(modality, TUNING_QUERIES), "row"


def repair(directory: Path, *, progress: Note | None = None) -> tuple[dict[str, int], CommitReport]:
    """Drops shards that are missing or damaged from the index, so that the next build embeds their files again.

    Returns:
        Shard name -> items that were in it, and the commit.
    """
    with IndexWriter.existing(directory) as writer:
        lost = writer.drop_damaged()
        return lost, writer.commit(progress=progress)
