"""`hf:ORG/NAME` and `hf:FOLDER`: encoders in the format of transformers and sentence-transformers.

files     a name becomes a folder on this disk, downloaded if need be; hashes of what lies in it
family    what its config says: sizes, preprocessing, text length, padding
encoder   the towers of CLIP, ChineseCLIP, AltCLIP, MetaCLIP 2, SigLIP and SigLIP 2 through transformers
sentence  everything that sentence-transformers can load
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from brivl_search.encoders.hf.files import find_model

if TYPE_CHECKING:
    from brivl_search.encoders.base import LoadedEncoder, Precision

__all__ = ["load_hf"]


def load_hf(name: str, *, device: str = "auto", precision: Precision = "auto") -> LoadedEncoder:
    """The encoder called hf:`name`: a folder, or ORG/NAME[@REVISION]; `?dim=N` at its end keeps N dimensions.

    Raises:
        EncoderError: it is not to be had, damaged, of an unknown kind, or N is not for this model.
        DependencyError: it needs sentence-transformers or sentencepiece, which are not installed.
    """
    found = find_model(name)
    if (found.folder / "modules.json").is_file():
        from brivl_search.encoders.hf.sentence import SentenceEncoder

        return SentenceEncoder(found, device=device, precision=precision)
    from brivl_search.encoders.hf.encoder import TransformersEncoder

    return TransformersEncoder(found, device=device, precision=precision)
