"""Folders in immich's format, exported from the small models of `tests.support.tiny_open_clip` as immich exports them.

The fixture `exported` is one of each kind in KINDS: import `exported_fixture`.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from brivl_search.encoders import load_encoder
from brivl_search.encoders.immich.encoder import ImmichEncoder
from tests.support.tiny_hf import edit_json
from tests.support.tiny_open_clip import for_open_clip, make_open_clip

KINDS = ("vit", "siglip", "xlm_roberta", "nllb_siglip")


class _Side(torch.nn.Module):
    def __init__(self, model: Any, side: str) -> None:
        super().__init__()
        self.model, self.side = model, side

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        encode = self.model.encode_image if self.side == "visual" else self.model.encode_text
        return encode(inputs, normalize=True)  # type: ignore[no-any-return]


def make_immich(folder: Path, model: Path, *, ids: torch.dtype = torch.int32, batch: bool = False) -> Path:
    """A folder in immich's format, of a model in open_clip's.

    Args:
        folder: to make.
        model: the folder of `make_open_clip`.
        ids: type of the token ids.
        batch: whether the files take any number of pictures and texts; immich's own take one.
    """
    import open_clip

    own = for_open_clip(model)
    built = open_clip.create_model(f"local-dir:{own}").eval()
    config = json.loads((model / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"]
    for side in ("visual", "textual"):
        (folder / side).mkdir(parents=True, exist_ok=True)
    pictures = open_clip.get_model_preprocess_cfg(built)
    _save(folder / "config.json", config)
    _save(folder / "visual" / "preprocess_cfg.json", pictures)
    if "hf_tokenizer_name" in config["text_cfg"]:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / "textual" / name).write_bytes((own / name).read_bytes())
    else:
        _clips_tokenizer().save_pretrained(folder / "textual")
    side = pictures["size"] if isinstance(pictures["size"], int) else pictures["size"][0]
    picture = torch.randn(1, 3, side, side)
    text = torch.ones(1, config["text_cfg"].get("context_length", 77), dtype=ids)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        for name, value, tower in (("image", picture, "visual"), ("text", text, "textual")):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    _Side(built, tower),
                    (value,),
                    str(folder / tower / "model.onnx"),
                    input_names=[name],
                    output_names=["embedding"],
                    opset_version=17,
                    dynamic_axes={name: {0: "batch"}, "embedding": {0: "batch"}} if batch else None,
                    dynamo=False,
                )
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return folder


def _clips_tokenizer() -> Any:
    """CLIP's tokenizer in transformers' format, of the vocabulary that comes with open_clip."""
    import open_clip
    import transformers

    own = open_clip.SimpleTokenizer()
    merges = [pair for pair, _ in sorted(own.bpe_ranks.items(), key=lambda one: one[1])]
    marks = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    return transformers.CLIPTokenizer(vocab={marks.get(k, k): n for k, n in own.encoder.items()}, merges=merges)


def _save(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")


@pytest.fixture(scope="session", name="exported")
def exported_fixture(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Kind → the folder in immich's format, the model that it was made of."""
    folder = tmp_path_factory.mktemp("immich")
    models = {kind: make_open_clip(folder / f"{kind}-model", kind) for kind in KINDS}
    edit_json(models["siglip"] / "tokenizer_config.json", padding_side="right")  # as the published ones, and as immich
    return {kind: (make_immich(folder / kind, model), model) for kind, model in models.items()}


def load(folder: Path, **options: Any) -> ImmichEncoder:
    encoder = load_encoder(f"hf:{folder}", **options)
    assert isinstance(encoder, ImmichEncoder)
    return encoder
