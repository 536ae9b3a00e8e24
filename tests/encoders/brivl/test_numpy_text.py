"""The text tower in NumPy gives torch's vectors, is what a query from the shell uses, and leaves the rest to torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from brivl_search.encoders.brivl.config import TextTowerConfig
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.brivl.numpy_text import NumpyTextTower, _gelu, supports
from brivl_search.encoders.registry import BUNDLED
from brivl_search.errors import EncoderError
from tests.support.pictures import write_corpus
from tests.support.site import run
from tests.support.stub import environment
from tests.support.tiny import make_checkpoint, tiny_model

TEXTS = ["一只在草地上的狗", "a dog", "", "x", "红色 圆形 red circle " * 20, "two people, 两个人 and a 🚲"]


@pytest.mark.parametrize("head", [{}, {"layers": 0}, {"layers": 2, "heads": 4}, {"normalize_tokens": False}])
@pytest.mark.parametrize("half", [True, False])
def test_same_vectors_as_torch(tmp_path: Path, head: dict[str, Any], half: bool) -> None:
    text = tiny_model()["text"]
    text = {**text, "head": {**text["head"], **head}, "backbone": {**text["backbone"], "num_hidden_layers": 3}}
    folder = make_checkpoint(tmp_path, seed=3, text=text)
    if not half:
        tensors = {name: tensor.astype(np.float32) for name, tensor in load_file(folder / "model.safetensors").items()}
        save_file(tensors, folder / "model.safetensors")
    encoder = BriVLEncoder(folder, device="cpu", precision="fp32")
    given = NumpyTextTower(folder, encoder.config.text).encode(encoder.tokenizer.ids(TEXTS))
    assert given.dtype == np.float32 and given.shape == (len(TEXTS), encoder.dim)
    assert np.abs(given - encoder.encode_texts(TEXTS)).max() < 2e-6


def test_same_vectors_with_the_bundled_model() -> None:
    encoder = BriVLEncoder(BUNDLED / "brivl-mini", device="cpu", precision="fp32")
    given = NumpyTextTower(encoder.folder, encoder.config.text).encode(encoder.tokenizer.ids(TEXTS))
    assert np.abs(encoder.checkpoint.hubness.texts(given) - encoder.encode_texts(TEXTS)).max() < 2e-6


def test_gelu() -> None:
    x = np.linspace(-8, 8, 4001, dtype=np.float32)
    assert np.abs(_gelu(x) - torch.nn.functional.gelu(torch.from_numpy(x)).numpy()).max() < 2e-6


def test_what_it_knows() -> None:
    assert supports(TextTowerConfig())
    for other in ({"model_type": "roberta"}, {"hidden_act": "relu"}, {"position_embedding_type": "relative_key"}):
        assert not supports(TextTowerConfig(backbone={"vocab_size": 10, **other}))


def test_a_checkpoint_that_does_not_fit(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["text"]["backbone"]["num_hidden_layers"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    encoder = BriVLEncoder(folder)
    with pytest.raises(EncoderError, match=r"model\.safetensors does not fit its config\.json: .*layer\.1"):
        NumpyTextTower(folder, encoder.config.text).encode([[2, 5, 3]])


@pytest.mark.slow
def test_a_query_from_the_shell_imports_no_torch(tmp_path: Path, tiny_checkpoint: Path) -> None:
    write_corpus(tmp_path / "photos", 6)
    assert run(tmp_path, "build-index", "photos", "--index", "ix", "--encoder", str(tiny_checkpoint)).code == 0
    code = (
        "import sys; sys.argv = ['brivl-search', 'query', 'a red circle', '--index', 'ix', '--format', 'paths']\n"
        "from brivl_search.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'timm', 'torchvision', 'faiss'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 6, done
    arguments = ("query", "a red circle", "--index", "ix", "--format", "paths", "--device", "cpu")
    assert run(tmp_path, *arguments).out == done.stdout  # where torch is imported already, it encodes
