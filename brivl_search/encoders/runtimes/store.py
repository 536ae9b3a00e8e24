"""The files of an export in the user's cache: brivl-search/exports/FINGERPRINT-SIDE-RUNTIME-PRECISION/.

facts.json comes with the folder's last rename and lists every file with its size. A folder whose files are not those is
made again: a copy that was cut short, say. Deleting the cache loses time and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from brivl_search.encoders import places
from brivl_search.encoders.runtimes.choice import SAFE, Choice, Side
from brivl_search.encoders.runtimes.tokens import Reading

FORMAT = 1  # of the exports; another one has another place
FACTS = "facts.json"
_FORGOTTEN = 24 * 3600.0  # seconds without a change, from which on an unfinished folder is nobody's
MODELS = {"onnx": "model.onnx", "openvino": "model.xml"}


@dataclass(frozen=True)
class Facts:
    """What is known of an export.

    Attributes:
        cosine: the least one, of its vectors and torch's in float32 for the same made pictures or texts.
        least: from this cosine on its vectors count as torch's: SAFE; in bfloat16 less, if torch's own bfloat16, which
            has always counted as the same, is as far away: up to twice its distance from 1.
        inputs: names of the tower's inputs.
        files: sizes of the files in bytes, by name.
        texts: how texts become token ids (`tokens.Reading` as a dictionary); None: for pictures, or only torch can.
        made_by: versions of what made it.
    """

    cosine: float
    inputs: list[str]
    least: float = SAFE
    files: dict[str, int] = field(default_factory=dict)
    texts: dict[str, Any] | None = None
    made_by: dict[str, str] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """Whether its vectors count as torch's."""
        return self.cosine >= self.least

    def write(self, folder: Path) -> None:
        """Writes facts.json for the files that are in `folder` now."""
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.name != FACTS}
        (folder / FACTS).write_text(json.dumps({**asdict(self), "files": files}, indent=1), encoding="utf-8")


def home() -> Path:
    """The folder of all exports: $BRIVL_SEARCH_EXPORTS, else in $XDG_CACHE_HOME, else in ~/.cache."""
    if own := os.environ.get("BRIVL_SEARCH_EXPORTS"):
        return Path(own).expanduser()
    return places.cache_folder() / "exports"


def place(fingerprint: str, side: Side, choice: Choice) -> Path:
    """The folder of one export, whether it is there or not."""
    return home() / f"{places.file_name(fingerprint)}-{side}-{choice.key}-{FORMAT}"


def read(folder: Path) -> Facts | None:
    """The facts of an export; None unless all its files are there in their length."""
    try:
        facts = Facts(**json.loads((folder / FACTS).read_text(encoding="utf-8")))
        whole = facts.files and all((folder / name).stat().st_size == size for name, size in facts.files.items())
        known = isinstance(facts.cosine + facts.least, float) and isinstance(facts.inputs, list)
        if facts.texts is not None:
            Reading(**facts.texts)  # of another version, it may say what this one does not know
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return facts if whole and known else None


def refuse(folder: Path, reason: str) -> None:
    """Keeps in mind that an export cannot be made, until a package changes."""
    with contextlib.suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _refused(folder).write_text(json.dumps({"reason": reason, "made_by": versions()}), encoding="utf-8")


def refusal(folder: Path) -> str:
    """Why an export could not be made; "": it was not tried with these packages."""
    try:
        values = json.loads(_refused(folder).read_text(encoding="utf-8"))
        return str(values["reason"]) if values["made_by"] == versions() else ""
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def small_texts(fingerprint: str) -> str:
    """What int8 is for an encoder's texts, a line for people; "": it was not tried here."""
    folder = place(fingerprint, "text", Choice("onnx", "int8"))
    if (facts := read(folder)) is not None:
        return f"texts in int8 keep their vectors (cosine {facts.cosine:.4f})"
    reason = refusal(folder)
    return f"texts stay in float32: {reason}" if reason else ""


def _refused(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.refused.json")


def versions() -> dict[str, str]:
    """Of the packages that decide how an export comes out."""
    found = {}
    for name in ("torch", "transformers", "timm", "open_clip_torch", "onnxruntime", "openvino"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def drop(folder: Path) -> None:
    """Deletes an export."""
    shutil.rmtree(folder, ignore_errors=True)


def unfinished(folder: Path) -> Path:
    """A new folder beside an export's place, to fill it in. Those that a killed process left behind long ago go.

    Raises:
        OSError: it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for old in folder.parent.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            newest = max(path.stat().st_mtime for path in (old, *old.iterdir()))
            if newest < time.time() - _FORGOTTEN:
                drop(old)
    # A number of the process alone would not do: in a container it is the same after every start.
    new = folder.with_name(f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    new.mkdir()
    return new


def put(made: Path, folder: Path) -> None:
    """Gives a finished folder its place. What is not whole there goes; what another process made meanwhile stays.

    Raises:
        OSError: the place cannot be taken.
    """
    for path in made.iterdir():  # a power cut must not leave zeros that have the right length
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    try:
        os.rename(made, folder)
    except OSError:
        if read(folder) is None:
            aside = made.with_name(f"{made.name}.old.tmp")
            with contextlib.suppress(FileNotFoundError):
                os.rename(folder, aside)
            os.rename(made if read(aside) is None else aside, folder)  # perhaps one was made in this very moment
            drop(aside)
    drop(made)


@contextlib.contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """A folder to be filled, which gets its place, `folder`, when the block ends without an error.

    Raises:
        OSError: the cache cannot be written.
    """
    temporary = unfinished(folder)
    try:
        yield temporary
        put(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
