"""Names of captioners → captioners: bundled ones, folders, and those of transformers."""

from __future__ import annotations

from pathlib import Path

from brivl_search.encoders.base import Encoder, Precision
from brivl_search.encoders.captioning import Captioner
from brivl_search.errors import EncoderError, UsageError


def load_captioner(
    name: str, encoder: Encoder | None, *, device: str = "auto", precision: Precision = "auto"
) -> Captioner:
    """Loads the captioner called `name`.

    Args:
        name: a bundled one, the folder of one that `train.captions` made, or hf:ORG/NAME, hf:FOLDER: a BLIP, BLIP-2,
            GIT or encoder-decoder of transformers.
        encoder: whose image tower ours read; None: one that reads none is asked for.
        device: a torch device, or "auto".
        precision: "fp32", "bf16", or "auto": bfloat16 where the processor multiplies it natively.

    Raises:
        EncoderError: it is damaged, is no captioner, or reads another image tower.
        UsageError: there is none of this name.
    """
    from brivl_search.encoders.captions.captioner import FolderCaptioner
    from brivl_search.encoders.captions.checkpoint import is_captioner

    if name.startswith("hf:"):
        from brivl_search.encoders.hf.captioner import TransformersCaptioner

        return TransformersCaptioner(name, device=device, precision=precision)
    folder = _folder(name)
    if not folder.is_dir():
        known = ", ".join(bundled_captioners())
        raise UsageError(
            f"no captioner {name!r}: give {known + ', ' if known else ''}the folder of one that train.captions made, "
            "or hf:ORG/NAME of a BLIP, BLIP-2 or GIT",
            code="no_captioner",
        )
    if not is_captioner(folder):
        raise EncoderError(f"{folder} holds no captioner: give the folder of one, with a config.json that says so")
    if encoder is None:
        raise UsageError(f"captioner {name} reads the regions of an encoder: give its `encoder`")
    return FolderCaptioner(folder, encoder, name=name, device=device, precision=precision)


def bundled_captioners() -> list[str]:
    """Names of the captioners that ship with the package."""
    from brivl_search.encoders.captions.config import CaptionConfig
    from brivl_search.encoders.registry import bundled

    return bundled(CaptionConfig.KIND)


def default_captioner() -> str:
    """The captioner that is used where none is named.

    Raises:
        UsageError: none ships with this copy.
    """
    if not (known := bundled_captioners()):
        raise UsageError(
            "no captioner is bundled with this copy: give `captioner`, the folder of one that train.captions made or "
            "hf:ORG/NAME of a BLIP, BLIP-2 or GIT",
            code="no_captioner",
        )
    return known[0]


def _folder(name: str) -> Path:
    from brivl_search.encoders.registry import BUNDLED

    folder = BUNDLED / name if name in bundled_captioners() else Path(name).expanduser()
    return folder.parent if folder.is_file() and folder.suffix == ".safetensors" else folder
