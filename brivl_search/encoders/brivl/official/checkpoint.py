"""Checkpoints of the published BriVL code (`{"learnable": state dict}` in a .pth): names, weights, tokenizer.

A state dict has four towers: "imgencoder.", "textencoder." and their momentum copies "imgencoder_mom." and
"textencoder_mom.". Some files hold one tower only. Three parts have no place in our towers: the CNN's classifier and
BERT's pooler, which BriVL never uses, and `position_ids`, which transformers saved until 4.30.

The file does not contain its sizes or its preprocessing. A published model (`PUBLISHED`) is recognised by the sizes of
two matrices, and by the file's name if models differ only in preprocessing. Any other model needs a file of the same
name that ends in .json; its content is that of a checkpoint folder's config.json.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brivl_search.encoders.brivl.checkpoint import TowerName
from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.hubness import Hubness
from brivl_search.encoders.confidence import Confidence
from brivl_search.encoders.digests import file_sha256
from brivl_search.errors import EncoderError, UsageError

if TYPE_CHECKING:
    import torch

    from brivl_search.encoders.brivl.tokenizer import TextTokenizer

PUBLISHED = ("brivl-1.0", "brivl-2.0", "brivl-paper")
_CONFIGS = Path(__file__).resolve().parent / "configs"
_SIGNS = {"brivl-1.0": ("1.0", "5500w"), "brivl-2.0": ("2.0", "brivl-with-roberta")}

TOWERS: Mapping[TowerName, str] = {"image": "imgencoder", "text": "textencoder"}
_NAMES: Mapping[TowerName, Mapping[str, str]] = {  # theirs, ours
    "image": {
        "backbone.": "backbones.0.net.",
        "learnable.max_pool.0.": "project.",
        "learnable.imgAtt.": "head.attention.",
        "learnable.imgFC.": "head.",
    },
    "text": {
        "backbone.bert.": "backbone.",
        "learnable.textAtt.": "head.attention.",
        "learnable.textFC.": "head.",
    },
}
UNUSED: Mapping[TowerName, tuple[str, ...]] = {
    "image": ("backbone.classifier.",),
    "text": ("backbone.bert.pooler.", "backbone.bert.embeddings.position_ids"),
}

# Chinese RoBERTa's vocabulary is that of bert-base-chinese: 21,128 lines, the same in all of these.
VOCABULARY_SHA256 = "45bbac6b341c319adc98a532532882e91a9cefc0329aa57bac9ae761c27b291c"
_VOCABULARIES = ("hfl/chinese-roberta-wwm-ext", "hfl/chinese-roberta-wwm-ext-large", "bert-base-chinese")


def published_config(name: str) -> ModelConfig:
    """The sizes and preprocessing of a published model.

    `brivl-1.0` and `brivl-2.0` are the released models: tf_efficientnet_b5 and Chinese RoBERTa base, 2048 dimensions.
    1.0 takes 380 × 380 pixels and detector boxes, 2.0 takes 456 × 456 and a grid. `brivl-paper` is the model that the
    papers describe and nobody released: tf_efficientnet_b7 and RoBERTa large, 2560 dimensions. All keep the quirks
    their weights were trained with (`PixelSpec.antialias`, `TextTowerConfig.padding`, `ImageTowerConfig.roi`).

    Raises:
        UsageError: no such model.
    """
    if name not in PUBLISHED:
        raise UsageError(f"no published model {name!r}: there are {', '.join(PUBLISHED)}")
    return _read_config(_CONFIGS / f"{name}.json")


def _read_config(path: Path) -> ModelConfig:
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path} cannot be read: {error}") from None
    if not isinstance(raw, dict):
        raise EncoderError(f"{path} does not describe a BriVL model: not a JSON object")
    return ModelConfig.from_dict(raw)


class OfficialCheckpoint:
    """A .pth of the published code as a `brivl_search.encoders.brivl.checkpoint.Checkpoint`."""

    def __init__(self, where: str) -> None:
        """Finds the file and its sizes. Reads the weights only if the model cannot be told without them.

        Args:
            where: the path; PATH@MODEL names the published model, PATH@FILE.json the sizes of another one.

        Raises:
            UsageError: there is no such file, or no published model of this name.
            EncoderError: it fits no known model.
        """
        path, _, model = where.rpartition("@") if "@" in where and not Path(where).exists() else (where, "", "")
        self.path = Path(path).expanduser().absolute()
        self.folder: Path | None = None
        self.hubness: Hubness | None = None
        self.confidence: Confidence | None = None
        if not self.path.is_file():
            raise UsageError(f"official:{where}: there is no file {path}: give the path of a BriVL .pth")
        beside = self.path.with_suffix(".json")
        self.name = f"official:{self.path}"
        if model.endswith(".json"):
            if not Path(model).expanduser().is_file():
                raise UsageError(f"official:{where}: there is no file {model}: give the path of the model's sizes")
            self.config = _read_config(Path(model).expanduser())
            self.name += f"@{Path(model).expanduser().absolute()}"
        elif model:
            self.config = published_config(model)
            self.name += f"@{model}"
        elif beside.is_file():
            self.config = _read_config(beside)
        else:
            self.config = published_config(self._recognise())

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights, the sizes, and the vocabulary if it is not the usual one.

        The directory of a zip file has a checksum of every tensor. Hashing those is quick, hashing two gigabytes takes
        seconds, and every query from the shell needs the fingerprint.
        """
        digest = hashlib.sha256(json.dumps(self.config.sizes(), sort_keys=True).encode())
        digest.update(self._weights_digest())
        own = self._own_tokenizer()
        if own is not None and file_sha256(own) != VOCABULARY_SHA256:
            digest.update(file_sha256(own).encode())
        return "brivl-" + digest.hexdigest()[:24]

    def _weights_digest(self) -> bytes:
        try:
            if zipfile.is_zipfile(self.path):
                with zipfile.ZipFile(self.path) as file:
                    entries = [(i.filename.partition("/")[2], i.file_size, i.CRC) for i in file.infolist()]
                if all(crc for _, size, crc in entries if size):  # torch can be told to write none
                    return hashlib.sha256(repr(sorted(entries)).encode()).digest()
            return bytes.fromhex(file_sha256(self.path))
        except (OSError, zipfile.BadZipFile) as error:
            raise EncoderError(f"{self.path} cannot be read: {error}") from None

    def state(self) -> dict[str, torch.Tensor]:
        """All tensors by their official names, memory-mapped if the file's format allows it.

        Raises:
            EncoderError: the file is damaged, or not a BriVL state dict.
        """
        import torch

        try:
            raw = torch.load(self.path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(self.path))
        except Exception as error:  # the unpickler raises whatever the bytes make it
            reason = " ".join(str(error).split())[:200]
            raise EncoderError(f"{self.path} cannot be read as a checkpoint of plain tensors: {reason}") from None
        inner = raw.get("learnable", raw) if isinstance(raw, dict) else None
        state = {}
        for name, tensor in inner.items() if isinstance(inner, dict) else ():
            short = str(name).removeprefix("module.").removeprefix("learnable.")
            if isinstance(tensor, torch.Tensor) and short.partition("_mom.")[0].split(".")[0] in TOWERS.values():
                state[short] = tensor
        if not state:
            raise EncoderError(
                f"{self.path} is not a BriVL checkpoint: it has no tensors imgencoder.* or textencoder.*"
            )
        return state

    def _recognise(self) -> str:
        """The name of the published model that the file holds."""
        shapes = {name: tuple(tensor.shape) for name, tensor in self.state().items()}
        fitting = [name for name in PUBLISHED if _fits(shapes, published_config(name))]
        if not fitting:
            raise EncoderError(
                f"{self.path} is of no published size: describe it in {self.path.with_suffix('.json').name} beside it"
            )
        if len(fitting) == 1:
            return fitting[0]
        signed = [name for name in fitting if any(sign in self.path.name.lower() for sign in _SIGNS.get(name, ()))]
        if len(signed) == 1:
            return signed[0]
        ways = " or ".join(f"official:{self.path}@{name}" for name in fitting)
        raise EncoderError(
            f"{self.path.name} may be {' or '.join(fitting)}, which differ in preprocessing: write {ways}"
        )

    def tensors(
        self, tower: TowerName, *, momentum: bool = False, state: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """The tensors of one tower by our names, from `state` or else from the file; empty if there are none."""
        prefix = TOWERS[tower] + ("_mom." if momentum else ".")
        whole = self.state() if state is None else state
        return rename(tower, {name.removeprefix(prefix): t for name, t in whole.items() if name.startswith(prefix)})

    def fill(self, tower: TowerName, module: torch.nn.Module) -> None:
        """Loads one tower, strictly.

        Raises:
            EncoderError: the file has no such tower, or it does not fit the config.
        """
        tensors = self.tensors(tower)
        if not tensors:
            raise EncoderError(f"{self.path} holds no {tower} tower: it has no tensors {TOWERS[tower]}.*")
        try:
            module.load_state_dict({n: t.float() if t.is_floating_point() else t for n, t in tensors.items()})
        except RuntimeError as error:
            first = str(error).split("\n")[1:2] or [str(error)]
            raise EncoderError(f"{self.path} does not fit {self.config.name}: {first[0].strip()}") from None

    def tokenizer(self) -> TextTokenizer:
        """The tokenizer.json or vocab.txt beside the file, else Chinese RoBERTa's from Hugging Face's cache or hub.

        Raises:
            EncoderError: there is none, or its size is not that of the word embeddings.
        """
        from brivl_search.encoders.brivl.tokenizer import TextTokenizer

        own = self._own_tokenizer()
        folder = find_vocabulary().parent if own is None else self.path.parent
        tokenizer = TextTokenizer(folder, self.config.text.max_length)
        words = self.config.text.backbone.get("vocab_size")
        if words is not None and tokenizer.size > int(words):
            raise EncoderError(f"{folder}: a vocabulary of {tokenizer.size:,} words for {words:,} word embeddings")
        return tokenizer

    def _own_tokenizer(self) -> Path | None:
        places = [self.path.with_name(name) for name in ("tokenizer.json", "vocab.txt")]
        return next((place for place in places if place.is_file()), None)


def rename(tower: TowerName, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Official names without their tower's prefix → ours. Unused tensors are dropped, unknown names are kept."""
    out = {}
    for name, tensor in tensors.items():
        if name.startswith(UNUSED[tower]):
            continue
        theirs = next((prefix for prefix in _NAMES[tower] if name.startswith(prefix)), "")
        new = _NAMES[tower].get(theirs, "") + name.removeprefix(theirs)
        # The 1 × 1 convolution over sampled points is a linear layer after averaging them.
        out[new] = tensor.flatten(1) if new == "project.weight" else tensor
    return out


def _fits(shapes: Mapping[str, tuple[int, ...]], config: ModelConfig) -> bool:
    """Whether the size of the embeddings, and of the word embeddings if there are some, is the config's."""
    text = config.text.backbone
    wanted = {
        "imgencoder.learnable.imgFC.fc2.bias": (config.dim,),
        "textencoder.learnable.textFC.fc2.bias": (config.dim,),
        "textencoder.backbone.bert.embeddings.word_embeddings.weight": (text["vocab_size"], text["hidden_size"]),
    }
    found = wanted.keys() & shapes.keys()
    return bool(found) and all(shapes[name] == wanted[name] for name in found)


def find_vocabulary() -> Path:
    """vocab.txt of Chinese RoBERTa, from Hugging Face's cache or else from its hub (HF_ENDPOINT and HF_HOME count).

    Raises:
        EncoderError: neither has it, or it is another vocabulary.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    for repo in _VOCABULARIES:
        place = try_to_load_from_cache(repo, "vocab.txt")
        if isinstance(place, str) and file_sha256(Path(place)) == VOCABULARY_SHA256:
            return Path(place)
    try:
        path = Path(hf_hub_download(_VOCABULARIES[0], "vocab.txt"))
    except Exception as error:  # of whatever HTTP library is underneath
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise EncoderError(
            f"the vocabulary of {_VOCABULARIES[0]} is not on this disk and cannot be downloaded ({reason}): put its "
            "vocab.txt beside the checkpoint, or set HF_ENDPOINT to a mirror"
        ) from None
    if file_sha256(path) != VOCABULARY_SHA256:
        raise EncoderError(
            f"{path} is not the vocabulary BriVL was trained with: put the right vocab.txt beside the .pth"
        )
    return path
