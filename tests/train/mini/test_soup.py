"""Averaging checkpoints: the mean is the mean, and what does not fit is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from brivl_search.encoders.brivl.checkpoint import read_config
from tests.support.tiny import make_checkpoint
from train.mini.soup import Part, cook, main


def test_weights_are_averaged_by_share(tmp_path: Path) -> None:
    a, b = make_checkpoint(tmp_path / "a", seed=1), make_checkpoint(tmp_path / "b", seed=2)
    cook(tmp_path / "soup", Part([a, b], [0.75, 0.25]))
    first, second, soup = (load_file(tmp_path / name / "model.safetensors") for name in ("a", "b", "soup"))
    assert soup.keys() == first.keys()
    for name, tensor in soup.items():
        if tensor.is_floating_point():
            wanted = 0.75 * first[name].float() + 0.25 * second[name].float()
            torch.testing.assert_close(tensor.float(), wanted, rtol=2e-3, atol=1e-3)
    shares = [part["share"] for part in read_config(tmp_path / "soup").training["averaged"]]
    assert shares == [0.75, 0.25]


def test_models_of_other_sizes_or_tokens_are_refused(tmp_path: Path) -> None:
    a, b = make_checkpoint(tmp_path / "a"), make_checkpoint(tmp_path / "b", dim=16)
    with pytest.raises(SystemExit, match="other sizes"):
        cook(tmp_path / "soup", Part([a, b], [0.5, 0.5]))
    c = make_checkpoint(tmp_path / "c")
    text = (c / "tokenizer.json").read_text(encoding="utf-8").replace("grass", "gruss")
    (c / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match="another tokenizer"):
        cook(tmp_path / "soup", Part([a, c], [0.5, 0.5]))
    assert not (tmp_path / "soup").exists()


def test_the_text_tower_may_have_shares_of_its_own(tmp_path: Path) -> None:
    a, b = make_checkpoint(tmp_path / "a", seed=1), make_checkpoint(tmp_path / "b", seed=2)
    main([str(tmp_path / "soup"), f"{a}=3", f"{b}=1", "--text", f"{a}=0.4", f"{b}=0.6"])
    first, second, soup = (load_file(tmp_path / name / "model.safetensors") for name in ("a", "b", "soup"))
    for name, tensor in soup.items():
        if tensor.is_floating_point():
            share = 0.6 if name.startswith("text.") else 0.25
            wanted = (1 - share) * first[name].float() + share * second[name].float()
            torch.testing.assert_close(tensor.float(), wanted, rtol=2e-3, atol=1e-3)
    facts = read_config(tmp_path / "soup").training
    assert [part["share"] for part in facts["averaged_text"]] == [0.4, 0.6]
    main([str(tmp_path / "image"), str(a), "--text", str(b)])
    image = load_file(tmp_path / "image" / "model.safetensors")
    assert all(torch.equal(image[name], (second if name.startswith("text.") else first)[name]) for name in image)
    with pytest.raises(SystemExit, match="a weight is a number"):
        main([str(tmp_path / "none"), f"{a}=much"])
