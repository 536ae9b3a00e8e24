"""Names of encoders → encoders: the bundled `brivl-mini`, folders, the hub's models, open_clip's, plug-ins.

A BriVL name may end in the source of its regions: NAME+boxes=FILE.jsonl or NAME+detector=hf:ORG/NAME. Without it, the
regions are a fixed grid. The source is part of the name because it changes the vectors, and an index keeps the name.
So is a precision that changes them, in any name: NAME+precision=int8.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

from brivl_search.encoders import base as bases
from brivl_search.encoders import calibration
from brivl_search.encoders.base import LoadedEncoder
from brivl_search.encoders.brivl.boxes import BoxFile, BoxSource
from brivl_search.encoders.brivl.checkpoint import Checkpoint, FolderCheckpoint
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.hf import layout
from brivl_search.encoders.immich.layout import is_immich
from brivl_search.encoders.model_folder import kind_of
from brivl_search.encoders.on_torch import TorchEncoder
from brivl_search.encoders.runtimes import choice
from brivl_search.encoders.runtimes.choice import Precision, Runtime
from brivl_search.encoders.settings import NONE, split
from brivl_search.errors import EncoderError, UsageError

DEFAULT = "brivl-mini"
BUNDLED = Path(__file__).resolve().parent.parent / "models"
_REGIONS = re.compile(r"(.*?)\+(boxes|detector)=(.*)", re.DOTALL)


_AFTER = {"hf:": "ORG/NAME or hf:FOLDER", "open_clip:": "NAME/PRETRAINED or open_clip:FOLDER", "official:": "FILE.pth"}
_PRECISION = re.compile(r"(.*)\+precision=(\w*)", re.DOTALL)


def bundled(kind: str = "") -> list[str]:
    """Names of the models of a kind (`model_folder.kind_of`) that ship with the package; without one, of encoders."""
    if not BUNDLED.is_dir():
        return []
    models = (folder for folder in BUNDLED.iterdir() if (folder / "config.json").is_file())
    return sorted(folder.name for folder in models if kind_of(folder) == kind)


def without_regions(name: str) -> str:
    """The name without the source of its regions."""
    found = _REGIONS.fullmatch(name)
    return found[1] if found else name


def load_encoder(
    name: str = DEFAULT,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    truncate_dim: int | None = None,
    runtime: Runtime = "auto",
) -> LoadedEncoder:
    """Loads the encoder called `name`.

        encoder = load_encoder("brivl-mini")
        images = encoder.encode_images(["cat.jpg", "dog.jpg"])  # float32 (2, dim), unit length
        texts = encoder.encode_texts("a dog on grass")  # float32 (1, dim), unit length
        cosines = texts @ images.T

    Args:
        name: one of

            brivl-mini: bundled. It wins over a folder of the same name; write ./brivl-mini for the folder.
            FOLDER, or the .safetensors inside it: a checkpoint folder.
            official:FILE.pth: weights of the published BriVL code (`brivl_search.encoders.brivl.official`).
            hf:ORG/NAME[@REVISION], hf:FOLDER: a model of transformers, sentence-transformers or immich
            (`brivl_search.encoders.hf`, `brivl_search.encoders.immich`); ?dim=N at the end does what `truncate_dim`
            does, &query_prompt= and &document_prompt= choose prompts (`brivl_search.encoders.settings`).
            open_clip:NAME/PRETRAINED, open_clip:FOLDER: a model of open_clip (`brivl_search.encoders.open_clip`).
            NAME, NAME:ARGUMENT: an encoder that a plug-in registered (`brivl_search.encoders.plugins`).
        device: a torch device, or "auto": the GPU where there is one.
        precision: "fp32", "bf16", "int8", or "auto": bfloat16 where the processor multiplies it natively. int8 is for
            the image tower, and for texts where it keeps their vectors; if it changes vectors by more than rounding,
            the encoder is another one, and its name ends in +precision=int8.
        truncate_dim: keep so many dimensions of each vector; for Matryoshka models only.
        runtime: "torch", "onnx", "openvino", or "auto": see `brivl_search.encoders.runtimes`. A tower that cannot be
            exported is computed by torch.

    A calibration that the user has measured (`models calibrate`) replaces all that the encoder says of itself.

    Raises:
        DependencyError: the encoder needs a package that is not installed.
        EncoderError: it is damaged or of another kind, or cannot be downloaded.
        UsageError: there is no such encoder, and the message lists the names that exist; or regions are asked of an
            encoder that has none, or their file cannot be read.
    """
    base, bound = without_precision(name)
    if bound is not None and precision not in ("auto", bound):
        raise UsageError(f"{name} is of {bound}: leave out `precision` {precision}")
    precision = bound or precision
    choice.check(runtime, precision, device)
    if truncate_dim is not None:
        base = truncated(base, truncate_dim)
    encoder = _load(base, device, "auto" if precision == "int8" else precision)
    if isinstance(encoder, TorchEncoder):
        _export(encoder, runtime, precision, device, bound is not None)
    elif runtime not in ("auto", "torch") or precision == "int8":
        raise UsageError(f"{name} computes its towers by itself: leave out `runtime` and `precision` int8")
    own = calibration.saved(encoder.fingerprint)
    if own is not None:
        encoder.calibration, encoder.confidence = own, None
    return encoder


def without_precision(name: str) -> tuple[str, Literal["int8", "bf16"] | None]:
    """The name without +precision=…, and the precision that it says.

    Raises:
        UsageError: it says one that changes no vectors, or that there is not.
    """
    found = _PRECISION.fullmatch(name)
    if found is None:
        return name, None
    if found[2] not in ("int8", "bf16"):
        raise UsageError(f"{name}: no precision {found[2]!r}: +precision= takes int8 or bf16; fp32 needs none")
    return found[1], found[2]  # type: ignore[return-value]


def _export(encoder: TorchEncoder, runtime: Runtime, precision: Precision, device: str, bound: bool) -> None:
    """Lets exported towers compute in the place of torch's where `runtime` says so."""
    from brivl_search.encoders.runtimes.exports import Exports, variant

    texts = not (isinstance(encoder, BriVLEncoder) and encoder.has_numpy_texts)
    exports = Exports(encoder.name, encoder.fingerprint, runtime, precision, device, texts=texts)
    encoder.exports = exports
    changed = variant(encoder.fingerprint, precision) if bound else exports.variant()
    if changed is not None:
        exports.bound = precision
        encoder.name, encoder.fingerprint = f"{encoder.name}+precision={precision}", changed


def _load(name: str, device: str, precision: bases.Precision) -> LoadedEncoder:
    if name in ("hf:", "open_clip:", "official:"):
        raise UsageError(f"{name} says no model: write {name}{_AFTER[name]}")
    found = _REGIONS.fullmatch(name)
    base, regions = (found[1], (found[2], found[3])) if found else (name, None)
    if base in bundled():
        return _brivl(FolderCheckpoint(BUNDLED / base), base, regions, device, precision)
    if base.startswith("official:"):
        from brivl_search.encoders.brivl.official.checkpoint import OfficialCheckpoint

        checkpoint = OfficialCheckpoint(base.removeprefix("official:"))
        return _brivl(checkpoint, checkpoint.name, regions, device, precision)
    if base.startswith("open_clip:") and regions is None:
        from brivl_search.encoders.open_clip import load_open_clip

        return load_open_clip(base.removeprefix("open_clip:"), device=device, precision=precision)
    path = Path(os.path.expanduser(base))
    if os.path.isfile(path) and path.suffix == ".safetensors":
        path = path.parent
    hub = base.removeprefix("hf:") if base.startswith("hf:") else str(path) if is_hf(path) else None
    if hub is not None and regions is None:
        from brivl_search.encoders.hf import load_hf
        from brivl_search.encoders.hf.family import is_open_clip
        from brivl_search.encoders.hf.files import find_model

        found_model = find_model(hub)
        if is_immich(found_model.folder):
            from brivl_search.encoders.immich import load_immich

            return load_immich(found_model, device=device, precision=precision)
        if is_open_clip(found_model.folder):
            from brivl_search.encoders.open_clip import load_found

            return load_found(found_model, device=device, precision=precision)
        return load_hf(found_model, device=device, precision=precision)
    if hub is None and os.path.isdir(path):
        return _brivl(FolderCheckpoint(path), str(path.resolve()), regions, device, precision)
    if regions is not None:
        raise UsageError(
            f"{name}: {regions[0]} are for BriVL's encoders: {', '.join(bundled())}, a folder, official:PATH"
        )
    from brivl_search.encoders.plugins import load_plugin, plugins

    plugged = load_plugin(name, device=device, precision=precision)
    if plugged is not None:
        return plugged
    if "?" in name and split(name)[1] != NONE:
        raise UsageError(
            f"{name}: ?dim= and ?query_prompt= are for hf: and open_clip: models: leave them out, or write hf:{name} "
            "if it is a folder of one"
        )
    if kind := kind_of(BUNDLED / name) if "/" not in name else "":
        use = "it re-orders hits (rerank_with)" if kind == "one-tower" else "it writes captions (captioner)"
        raise UsageError(f"{name} is no encoder: {use}; leave the encoder out, or give brivl-mini")
    names = [*bundled(), *plugins()]
    near = difflib.get_close_matches(name, names, 1)
    raise UsageError(
        f"no encoder {name!r}: {f'did you mean {near[0]}? ' if near else ''}give a known name "
        f"({', '.join(names) or 'none'}), the path of a checkpoint folder, official:FILE.pth, hf:ORG/NAME or "
        "open_clip:NAME/PRETRAINED; "
        "`brivl-search models list` shows more"
    )


def truncated(name: str, dim: int) -> str:
    """The name of the same encoder with vectors cut to `dim`.

    Raises:
        UsageError: `dim` is less than 1.
        EncoderError: it is no model of hf: or open_clip:, and only those can be cut.
    """
    if dim < 1:
        raise UsageError(f"`truncate_dim` {dim}: give a whole number from 1 on")
    if not name.startswith(("hf:", "open_clip:")):
        raise EncoderError(
            f"{name} cannot be cut to {dim} dimensions: only Matryoshka models by hf: or open_clip: can; leave out "
            "`truncate_dim`"
        )
    bare, settings = split(name)
    return bare + replace(settings, dim=dim).suffix


def is_hf(folder: Path) -> bool:
    """Whether a folder holds a model of transformers, sentence-transformers, open_clip or immich, not one of ours."""
    if not os.path.isdir(folder):  # pathlib's is_dir stumbles over names that are too long for a file
        return False
    if (folder / "modules.json").is_file() or (folder / layout.CONFIG).is_file() or is_immich(folder):
        return True
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False  # ours, perhaps; the message about it comes from there
    return isinstance(config, dict) and "model_type" in config


def _brivl(
    checkpoint: Checkpoint, name: str, regions: tuple[str, str] | None, device: str, precision: bases.Precision
) -> BriVLEncoder:
    boxes: BoxSource | None = None
    if regions is not None:
        kind, source = regions
        if not source:
            raise UsageError(f"{name}+{kind}=: say {'which file' if kind == 'boxes' else 'which detector'}")
        if kind == "boxes":
            boxes = BoxFile(Path(source).expanduser().absolute())
            name += f"+boxes={boxes.path}"
        else:
            from brivl_search.encoders.brivl.detector import Detector

            boxes = Detector(source, device=device, most=checkpoint.config.image.max_boxes)
            name += f"+detector={boxes.name}"
    return BriVLEncoder(checkpoint, name=name, device=device, precision=precision, boxes=boxes)
