"""What `models runtimes` has measured of an encoder on this machine: the fastest runtime that keeps its recall.

One small file an encoder, in the user's data folder. It counts as long as the CPU is the one it was measured on.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from brivl_search.corpus.atomic import appearing
from brivl_search.encoders import places
from brivl_search.encoders.cpu import cpu_name
from brivl_search.encoders.runtimes import store
from brivl_search.encoders.runtimes.choice import PRECISIONS, RUNTIMES, Choice, choose

MOST_LOST = 0.5  # points of recall@10 that speed may cost


@dataclass(frozen=True)
class Measured:
    """One way to compute an encoder's image tower.

    Attributes:
        runtime, precision: the way.
        rate: pictures a second.
        cosine: the least one to torch's vectors in float32.
        same: whether its vectors count as torch's, see `store.Facts.least`.
        recall: recall@10 in percent, the mean of both directions; None: not measured.
        lost: points of it less than torch in float32; None: not measured.
    """

    runtime: str
    precision: str
    rate: float
    cosine: float
    same: bool
    recall: float | None = None
    lost: float | None = None

    @property
    def choice(self) -> Choice:
        return Choice(self.runtime, self.precision)  # type: ignore[arg-type]

    @property
    def safe(self) -> bool:
        """Whether it may be used: it keeps the recall, or, where that is not known, the vectors."""
        return self.same if self.lost is None else self.lost <= MOST_LOST

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "safe": self.safe}


def fastest(ways: list[Measured]) -> Measured | None:
    """The fastest safe one."""
    return max((one for one in ways if one.safe), key=lambda one: one.rate, default=None)


def path_of(fingerprint: str) -> Path:
    """$XDG_DATA_HOME/brivl-search/runtimes/FINGERPRINT.json."""
    return places.data_folder() / "runtimes" / f"{places.file_name(fingerprint)}.json"


def save(fingerprint: str, ways: list[Measured]) -> Path:
    """Keeps what was measured on this machine.

    Raises:
        OSError: the file cannot be written.
    """
    path = path_of(fingerprint)
    path.parent.mkdir(parents=True, exist_ok=True)
    with appearing(path) as (temporary,):
        temporary.write_text(json.dumps({"cpu": cpu_name(), "ways": [asdict(one) for one in ways]}, indent=1))
    return path


def read(fingerprint: str) -> list[Measured]:
    """What was measured on this machine; empty: nothing, or nothing that can be read."""
    try:
        values = json.loads(path_of(fingerprint).read_text(encoding="utf-8"))
        if values["cpu"] != cpu_name():
            return []
        ways = [Measured(**one) for one in values["ways"]]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return []
    return [one for one in ways if one.runtime in RUNTIMES and one.precision in PRECISIONS]


def best(fingerprint: str, precision: str = "auto") -> Choice | None:
    """What `auto` takes for pictures of an encoder; None: nothing was measured.

    Args:
        fingerprint: of its vectors in float32.
        precision: "int8": the fastest of these; else only ways that keep the vectors.
    """
    ways = read(fingerprint)
    kept = [one for one in ways if one.same and precision in ("auto", one.precision)]
    found = fastest([one for one in ways if one.precision == "int8"] if precision == "int8" else kept)
    return None if found is None else found.choice


def best_for_new(fingerprint: str) -> Measured | None:
    """The fastest way for a new index, whose vectors may differ from float32's; None: nothing was measured."""
    return fastest(read(fingerprint))


def describe(fingerprint: str) -> str:
    """What `auto` takes for pictures of an encoder here, and why, and what int8 is for texts: a line for people."""
    way = next((one for one in read(fingerprint) if one.choice == best(fingerprint)), None)
    texts = f"; {told}" if (told := store.small_texts(fingerprint)) else ""
    if way is None:
        return f"{choose('image', 'auto', 'auto', 'auto')} (not measured here: models runtimes){texts}"
    lost = "" if way.lost is None else f", {max(way.lost, 0):.1f} points of recall@10 lost"
    return f"{way.choice} (measured here: {way.rate:.0f} images/s{lost}){texts}"
