"""`hf:immich-app/NAME` and folders in immich's format: two towers as ONNX files. Torch and transformers are not needed.

    config.json                     open_clip's `model_cfg`: length of vectors and of texts, cleaning of texts
    visual/model.onnx               pictures → vectors
    visual/preprocess_cfg.json      how pictures are prepared
    textual/model.onnx              token ids → vectors
    textual/tokenizer.json          the tokenizer, and tokenizer_config.json with its special tokens

layout   names of the files, and whether all are there
files    reads the descriptions
tokens   texts → token ids by the `tokenizers` library
encoder  the encoder over all that
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brivl_search.encoders.base import LoadedEncoder, Precision
    from brivl_search.encoders.hf.files import FoundModel

__all__ = ["load_immich"]


def load_immich(found: FoundModel, *, device: str = "auto", precision: Precision = "auto") -> LoadedEncoder:
    """Loads a folder that `hf.files.find_model` found.

    Raises:
        DependencyError: ONNX Runtime is not installed.
        EncoderError: the folder is not whole, is damaged or not supported, or its vectors cannot be cut.
        UsageError: `device` or `precision` asks for what ONNX files on the CPU do not have.
    """
    from brivl_search.encoders.immich.encoder import ImmichEncoder

    return ImmichEncoder(found, device=device, precision=precision)
