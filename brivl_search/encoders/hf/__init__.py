"""`hf:ORG/NAME` and `hf:FOLDER`: encoders in the format of transformers and sentence-transformers.

Those in the format of open_clip go to `brivl_search.encoders.open_clip`.

files     finds the folder of a model, downloads it if necessary, hashes its files
layout    names of files in open_clip's format
family    reads the config files: sizes, preprocessing, text length, padding
encoder   CLIP, Chinese-CLIP, AltCLIP, MetaCLIP 2, SigLIP and SigLIP 2, by transformers
towers    loads one tower of such a model without the other
fgclip    FG-CLIP 2, whose text tower (`walks`) reads short and long texts in two ways
sentence  everything that sentence-transformers can load
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brivl_search.encoders.base import LoadedEncoder, Precision
    from brivl_search.encoders.hf.files import FoundModel

__all__ = ["load_hf"]


def load_hf(found: FoundModel, *, device: str = "auto", precision: Precision = "auto") -> LoadedEncoder:
    """Loads a model that `files.find_model` found.

    Raises:
        EncoderError: the model is damaged or of an unknown kind, or cannot be cut.
        DependencyError: it needs sentence-transformers, which is not installed.
    """
    if (found.folder / "modules.json").is_file():
        from brivl_search.encoders.hf.sentence import SentenceEncoder

        return SentenceEncoder(found, device=device, precision=precision)
    from brivl_search.encoders.hf.files import read_json

    if read_json(found.folder / "config.json").get("model_type") == "fgclip2":
        from brivl_search.encoders.hf.fgclip import FgClipEncoder

        return FgClipEncoder(found, device=device, precision=precision)
    from brivl_search.encoders.hf.encoder import TransformersEncoder

    return TransformersEncoder(found, device=device, precision=precision)
