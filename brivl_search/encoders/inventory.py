"""Lists encoders: the well-known ones, and those on this disk; and what else has a name: matchers and captioners.

Loads neither a model nor torch.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from brivl_search.encoders import speeds
from brivl_search.encoders.brivl.weights import names_of
from brivl_search.encoders.hf.family import is_open_clip
from brivl_search.encoders.hf.layout import weight_file
from brivl_search.encoders.immich.layout import is_immich
from brivl_search.encoders.known import KNOWN, KnownModel
from brivl_search.encoders.plugins import package_of, plugins
from brivl_search.encoders.recommended import purposes_of
from brivl_search.encoders.speeds import Speed
from brivl_search.errors import BrivlSearchError, UsageError

Location = Literal["bundled", "hub cache", "folder"]


@dataclass(frozen=True)
class OnDisk:
    """A model's files.

    Attributes:
        place: the kind of place they are in.
        path: the folder.
        bytes: size of all its files.
        complete: whether all files are there that the model needs.
    """

    place: Location
    path: Path
    bytes: int
    complete: bool

    def to_dict(self) -> dict[str, Any]:
        return {"place": self.place, "path": str(self.path), "bytes": self.bytes, "complete": self.complete}


@dataclass
class Entry:
    """One encoder.

    Attributes:
        name: what `load_encoder` and `--encoder` take.
        dim: length of its vectors; None: unknown.
        parameters: in millions; None: unknown.
        known: published facts, if it is a well-known model.
        package: for a plug-in, the package that registers it.
        disk: where its files are.
        speeds: what `models bench` measured of it on this machine, newest last.
    """

    name: str
    dim: int | None = None
    parameters: float | None = None
    known: KnownModel | None = None
    package: str = ""
    disk: list[OnDisk] = field(default_factory=list)
    speeds: list[Speed] = field(default_factory=list)

    @property
    def relative(self) -> float | None:
        """Pictures/s over those of brivl-mini, in the newest measurement that has both."""
        return next((one.relative for one in reversed(self.speeds) if one.relative is not None), None)

    def to_dict(self) -> dict[str, Any]:
        known = self.known or KnownModel(self.name, "", 0)
        return {
            "name": self.name,
            "kind": "encoder",
            "languages": known.languages or None,
            "dim": self.dim,
            "parameters_millions": self.parameters,
            "pixels": known.pixels,
            "matryoshka": list(known.matryoshka),
            "licence": known.licence or None,
            "recommended_for": purposes_of(self.name),
            "needs": known.needs or None,
            "note": known.note or None,
            "package": self.package or None,
            "on_disk": [one.to_dict() for one in self.disk],
            "figures": [figure.to_dict() for figure in known.figures],
            "speeds": [speed.to_dict() for speed in self.speeds],
        }


HelperKind = Literal["matcher", "captioner"]


@dataclass(frozen=True)
class Helper:
    """A matcher or captioner, or a family of them on the hub.

    Attributes:
        name: what its option takes; hf:ORG/NAME for a family.
        kind: what it is.
        argument: of Python, that takes it; of the command line, the option of this name.
        note: what it reads and writes.
        architectures: of a family: the classes of transformers that it may be (`architectures` in its config.json).
        parameters: in millions; None: unknown.
        disk: where its files are.
    """

    name: str
    kind: HelperKind
    argument: str
    note: str = ""
    architectures: tuple[str, ...] = ()
    parameters: float | None = None
    disk: tuple[OnDisk, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "argument": self.argument,
            "note": self.note or None,
            "architectures": list(self.architectures),
            "parameters_millions": self.parameters,
            "on_disk": [one.to_dict() for one in self.disk],
        }


_ARGUMENTS: dict[HelperKind, str] = {"matcher": "rerank_with", "captioner": "captioner"}
_NOTES = {"brivl-mini-rerank": "reads zh, en; for indexes of brivl-mini"}


def helpers(folders: Sequence[Path] = ()) -> list[Helper]:
    """What `rerank_with` and `captioner` take: bundled ones, those in `folders`, then the families of transformers.

    Args:
        folders: as of `inventory`.

    Raises:
        UsageError: a folder does not exist.
    """
    from brivl_search.encoders.captioners import bundled_captioners
    from brivl_search.encoders.captions.config import CaptionConfig
    from brivl_search.encoders.hf import captioner, matcher
    from brivl_search.encoders.matching import bundled_matchers
    from brivl_search.encoders.model_folder import kind_of
    from brivl_search.encoders.one_tower.config import MatcherConfig
    from brivl_search.encoders.registry import BUNDLED

    kinds: dict[str, HelperKind] = {MatcherConfig.KIND: "matcher", CaptionConfig.KIND: "captioner"}
    found: list[Helper] = []
    here: list[tuple[str, Location, Path]] = [
        *((name, "bundled", BUNDLED / name) for name in [*bundled_matchers(), *bundled_captioners()]),
        *((os.fspath(path), "folder", path) for path in _models_in(folders, lambda path: kind_of(path) in kinds)),
    ]
    for name, place, path in here:
        kind, disk = kinds[kind_of(path)], (_on_disk(place, path),)
        found.append(Helper(name, kind, _ARGUMENTS[kind], _NOTES.get(name, ""), (), _parameters(path), disk))
    matchers, captioners = "a BLIP, BLIP-2 or ViLT; English", "a BLIP, BLIP-2, GIT or encoder-decoder; English"
    return [
        *found,
        Helper("hf:ORG/NAME", "matcher", _ARGUMENTS["matcher"], matchers, tuple(matcher.KINDS)),
        Helper("hf:ORG/NAME", "captioner", _ARGUMENTS["captioner"], captioners, tuple(captioner.KINDS)),
    ]


def inventory(folders: Sequence[Path] = ()) -> list[Entry]:
    """Well-known encoders, then others in Hugging Face's cache and in `folders`, then plug-ins.

    Args:
        folders: checkpoint folders, or folders that contain some.

    Raises:
        UsageError: a folder does not exist.
    """
    entries = {model.name: Entry(model.name, model.dim, model.parameters, model) for model in KNOWN}
    for name, place, path in [*_bundled(), *_cached(), *_below(folders)]:
        entry = entries.setdefault(name, Entry(name))
        entry.disk.append(_on_disk(place, path))
        entry.dim = entry.dim or _dim(path)
        entry.parameters = entry.parameters or _parameters(path)
    for scheme, points in plugins().items():
        entries.setdefault(scheme, Entry(scheme)).package = " and ".join(map(package_of, points))
    measured = {_own_name(entry): entry for entry in entries.values()}
    for speed in speeds.read():
        if speed.name in measured:
            measured[speed.name].speeds.append(speed)
    return list(entries.values())


def _own_name(entry: Entry) -> str:
    """What the encoder calls itself: a folder by its whole path."""
    folder = next((disk.path for disk in entry.disk if disk.place == "folder"), None)
    return entry.name if folder is None else f"{entry.name.removesuffix(os.fspath(folder))}{folder.resolve()}"


def _bundled() -> Iterable[tuple[str, Location, Path]]:
    from brivl_search.encoders.registry import BUNDLED, bundled

    return [(name, "bundled", BUNDLED / name) for name in bundled()]


def _cached() -> Iterable[tuple[str, Location, Path]]:
    """Models in Hugging Face's cache that may be encoders: CLIP-like ones, and those of sentence-transformers."""
    from huggingface_hub import constants

    found: list[tuple[str, Location, Path]] = []
    for repo in sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*")):
        try:
            snapshot = repo / "snapshots" / (repo / "refs" / "main").read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if snapshot.is_dir() and is_encoder(snapshot):
            found.append(("hf:" + repo.name.removeprefix("models--").replace("--", "/"), "hub cache", snapshot))
    return found


def _models_in(folders: Sequence[Path], is_model: Callable[[Path], bool]) -> Iterator[Path]:
    """Each folder if it is such a model, else those in it that are; raises UsageError: a folder does not exist."""
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"no such folder: {folder}: check the path")
        if is_model(folder):
            yield folder
        else:
            yield from (path for path in sorted(folder.iterdir()) if path.is_dir() and is_model(path))


def _below(folders: Sequence[Path]) -> Iterable[tuple[str, Location, Path]]:
    found: list[tuple[str, Location, Path]] = []
    for path in _models_in(folders, is_encoder):
        prefix = "" if _ours(path) else "hf:"
        prefix = "open_clip:" if is_open_clip(path) else prefix
        found.append((f"{prefix}{os.fspath(path)}", "folder", path))
    return found


def is_encoder(folder: Path) -> bool:
    """Whether the config files in a folder are those of an encoder; its weights may be missing."""
    from brivl_search.encoders.hf.family import FAMILIES

    config = _config(folder)
    ours = isinstance(config.get("image"), dict) and isinstance(config.get("text"), dict)
    return ours or config.get("model_type") in FAMILIES or _sentence(folder) or _of_others(folder)


def _ours(folder: Path) -> bool:
    return "model_type" not in _config(folder) and not _sentence(folder) and not _of_others(folder)


def _of_others(folder: Path) -> bool:
    return is_open_clip(folder) or is_immich(folder)


def _sentence(folder: Path) -> bool:
    return (folder / "modules.json").is_file()


def _config(folder: Path) -> dict[str, Any]:
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _on_disk(place: Location, folder: Path) -> OnDisk:
    from brivl_search.encoders.hf.files import complete

    whole = (folder / "model.safetensors").is_file() if _ours(folder) else complete(folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return OnDisk(place, folder, size, whole)


def _dim(folder: Path) -> int | None:
    try:
        if is_immich(folder):
            from brivl_search.encoders.immich import files as immich

            return immich.read_description(folder).dim
        if is_open_clip(folder):
            from brivl_search.encoders.open_clip.config import read_description

            return read_description(folder).dim
        if "model_type" in _config(folder):
            from brivl_search.encoders.hf.family import read_facts

            return read_facts(folder).dim
        from brivl_search.encoders.brivl.checkpoint import read_config

        return read_config(folder).dim
    except BrivlSearchError:
        return None


_BESIDE = {"hubs.safetensors", "momentum.safetensors"}  # lie beside a model's weights and are none of its parameters


def _parameters(folder: Path) -> float | None:
    """Millions of numbers in the weights, read from the headers of safetensors files; None: other formats."""
    from safetensors import SafetensorError, safe_open

    files = [path for path in folder.rglob("*.safetensors") if path.name not in _BESIDE]
    if is_open_clip(folder):  # other files there have the same weights in other formats
        weights = weight_file(folder)
        files = [weights] if weights is not None and weights.suffix == ".safetensors" else []
    total = 0
    try:
        for path in files:
            with safe_open(str(path), framework="np") as file:
                for name in names_of(file):
                    total += math.prod(file.get_slice(name).get_shape())
    except (SafetensorError, OSError):
        return None
    return round(total / 1e6, 1) if total else None
