"""A matcher's folder: config.json, model.safetensors, tokenizer.json. Like that of two towers, read without torch's
pickles."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brivl_search.corpus.atomic import appearing
from brivl_search.encoders.brivl.checkpoint import CONFIG, WEIGHTS
from brivl_search.encoders.brivl.weights import write_tensors
from brivl_search.encoders.one_tower.config import KIND, MatcherConfig
from brivl_search.errors import EncoderError

if TYPE_CHECKING:
    from brivl_search.encoders.brivl.text_tower import TextTower
    from brivl_search.encoders.brivl.tokenizer import TextTokenizer
    from brivl_search.encoders.one_tower.model import OneTower

PREFIX = "matcher"  # of every tensor's name


def is_matcher(folder: Path) -> bool:
    """Whether a folder holds a one-tower matcher."""
    try:
        raw = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(raw, dict) and raw.get("kind") == KIND


def read_config(folder: Path) -> MatcherConfig:
    """The architecture of the matcher in `folder`.

    Raises:
        EncoderError: the folder is no matcher, or its config.json is damaged.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise EncoderError(f"{folder} is not a matcher: it has no {name}")
    try:
        raw: Any = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(f"{folder / CONFIG} cannot be read: {error}") from None
    if not isinstance(raw, dict):
        raise EncoderError(f"{folder / CONFIG} does not describe a matcher: not a JSON object")
    try:
        return MatcherConfig.from_dict(raw)
    except EncoderError as error:
        raise EncoderError(f"{folder}: {error}") from None


def fingerprint(folder: Path, config: MatcherConfig) -> str:
    """Hash of all that decides a score: weights, tokenizer, sizes, and which image tower's regions it reads."""
    digest = hashlib.sha256(json.dumps(config.sizes(), sort_keys=True).encode())
    for name in (WEIGHTS, "tokenizer.json", "vocab.txt"):
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                digest.update(name.encode() + hashlib.file_digest(file, "sha256").digest())
    return "matcher-" + digest.hexdigest()[:24]


def load_model(folder: Path, config: MatcherConfig, text: Callable[[], TextTower]) -> OneTower:
    """The matcher, in eval mode on the CPU.

    Args:
        folder: of the matcher.
        config: its architecture.
        text: loads the text tower; it is asked if the matcher shares its first layers.

    Raises:
        EncoderError: a tensor is missing, superfluous, or of another shape; or the file is damaged.
    """
    from brivl_search.encoders.brivl.checkpoint import load_tensors
    from brivl_search.encoders.one_tower.model import OneTower
    from brivl_search.encoders.one_tower.shared import fill_shared, shared_names

    model = OneTower(config)
    if config.shared_layers:
        fill_shared(model, text())
    load_tensors(folder, PREFIX, model, elsewhere=shared_names(model))
    return model.eval()


def save_matcher(
    folder: Path, config: MatcherConfig, model: OneTower, tokenizer: TextTokenizer, *, int8: bool = True
) -> None:
    """Writes a matcher's folder; config.json last: a folder with a config is complete. What is the text tower's is left
    out."""
    from brivl_search.encoders.one_tower.shared import shared_names

    folder.mkdir(parents=True, exist_ok=True)
    shared = set(shared_names(model))
    tensors = {f"{PREFIX}.{name}": tensor for name, tensor in model.state_dict().items() if name not in shared}
    write_tensors(folder / WEIGHTS, tensors, half=True, int8=int8)
    tokenizer.save(folder)
    with appearing(folder / CONFIG) as (temporary,):
        temporary.write_text(json.dumps(config.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
