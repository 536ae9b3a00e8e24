"""Words beside regions, the bank that takes hubs off, and layers that stay the text tower's."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from brivl_search.encoders.base import Origin
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.from_bert import copy_first, shared_names
from brivl_search.encoders.matching import load_matcher
from brivl_search.encoders.one_tower.alignment import SHARPNESS, Alignment
from brivl_search.encoders.one_tower.checkpoint import save_matcher
from brivl_search.encoders.one_tower.config import MatcherConfig
from brivl_search.encoders.one_tower.model import OneTower
from brivl_search.errors import EncoderError
from tests.support.tiny import make_checkpoint

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
ORIGINS = [Origin("", 64, 64)] * 3
TEXTS = ["a red dog on grass", "草地上的狗", "dog"]


def plain(align: Alignment, words: np.ndarray, regions: np.ndarray) -> float:
    """The score of one pair, word by word, as the docstring has it."""
    weight = {name: value.numpy() for name, value in align.state_dict().items()}
    shares = words @ weight["share.weight"][0] + weight["share.bias"]
    shares = np.exp(shares - shares.max()) / np.exp(shares - shares.max()).sum()
    total = 0.0
    for share, word in zip(shares, words @ weight["words.weight"].T + weight["words.bias"], strict=True):
        cosines = []
        for region in regions @ weight["regions.weight"].T + weight["regions.bias"]:
            cosines.append(float(word @ region / np.linalg.norm(word) / np.linalg.norm(region)))
        total += share * math.log(sum(math.exp(SHARPNESS * cosine) for cosine in cosines)) / SHARPNESS
    return math.exp(weight["log_scale"]) * total


@torch.inference_mode()
def test_a_pair_is_scored_word_by_word() -> None:
    torch.manual_seed(0)
    align = Alignment(8, 4)
    words, regions = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    there, shown = torch.tensor([[1, 1, 1], [1, 1, 0]]).bool(), torch.tensor([[1] * 5, [1, 1, 1, 0, 0]]).bool()
    texts, pictures = align.of_texts(words, there), align.of_pictures(regions, shown)
    table = align.table(texts, pictures)
    for text, has in ((0, 3), (1, 2)):
        for picture, sees in ((0, 5), (1, 3)):
            wanted = plain(align, words[text, :has].numpy(), regions[picture, :sees].numpy())
            assert float(table[text, picture]) == pytest.approx(wanted, abs=1e-4)
    at = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    assert torch.allclose(align.pairs(texts, pictures, *at), table.flatten(), atol=1e-5)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("towers"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> tuple[Path, OneTower, BriVLEncoder]:
    """A folder of a matcher with a bank, which shares a layer; and what it was written from."""
    towers = BriVLEncoder(checkpoint, device="cpu", precision="fp32")
    theirs = towers.config.text.backbone
    torch.manual_seed(0)
    config = MatcherConfig(
        vocab_size=theirs["vocab_size"], width=theirs["hidden_size"], heads=theirs["num_attention_heads"],
        feedforward=theirs["intermediate_size"], region_size=towers.image_tower.project.in_features, text_layers=1,
        joint_layers=1, one_way=True, max_length=16, align_size=6, bank_texts=2, bank_words=4, bank_pictures=3,
        bank_regions=5, hub_weight=0.5, shared_layers=1, regions=towers.regions_fingerprint,
        texts=towers.words_fingerprint,
    )  # fmt: skip
    model = OneTower(config).eval()
    copy_first(model, towers.text_tower, 1)
    assert model.align and model.bank
    with torch.inference_mode():
        features, boxes, mask = towers.regions(PIXELS)
        shown = model.images(features, boxes, mask)
        ids, there = (torch.from_numpy(part) for part in towers.tokenizer.batch(towers.tokenizer.ids(TEXTS[:2])))
        said = model.texts(ids, there)
        model.bank.fill(model.align.of_texts(said.tokens, said.mask), model.align.of_pictures(shown.tokens, shown.mask))
    folder = tmp_path_factory.mktemp("matcher")
    save_matcher(folder, config, model, towers.tokenizer, int8=False)
    return folder, model, towers


@torch.inference_mode()
def test_the_bank_takes_off_what_fits_everything(made: tuple[Path, OneTower, BriVLEncoder]) -> None:
    folder, model, towers = made
    features, boxes, mask = towers.regions(PIXELS)
    ids, there = (torch.from_numpy(part) for part in towers.tokenizer.batch(towers.tokenizer.ids(TEXTS)))
    said, shown = model.texts(ids, there), model.images(features, boxes, mask)
    hubs = model.text_hubs(said), model.image_hubs(shown)
    assert model.align and model.bank
    first = [
        float(model.align.table(model.bank.texts(), model.align.of_pictures(shown.tokens[at:at + 1], mask[:1]))
              .exp().sum().log()) for at in range(3)
    ]  # fmt: skip
    assert hubs[1].tolist() == pytest.approx(first, abs=1e-3)
    expected = model.logits(said, shown, torch.arange(3), torch.arange(3)) - 0.5 * (hubs[0] + hubs[1])
    matcher = load_matcher(str(folder), towers, device="cpu", precision="fp32")
    found = matcher.scores(TEXTS, matcher.pictures(PIXELS, ORIGINS))
    assert np.allclose(found, expected.numpy(), atol=2e-2)  # the bank is kept in float16
    with pytest.raises(ValueError, match="no bank"):
        OneTower(MatcherConfig(vocab_size=9, width=8, heads=1, feedforward=8, joint_layers=1)).text_hubs(said)


def test_a_bank_keeps_a_texts_first_words(made: tuple[Path, OneTower, BriVLEncoder]) -> None:
    _, model, towers = made
    assert model.bank
    assert len(towers.tokenizer.ids(TEXTS[:1])[0]) > 4  # one is longer than the bank's four words
    assert torch.allclose(model.bank.texts().shares.sum(1), torch.ones(2))


def test_what_is_the_text_towers_is_not_kept_twice(
    made: tuple[Path, OneTower, BriVLEncoder], checkpoint: Path, tmp_path: Path
) -> None:
    from safetensors import safe_open

    folder, model, _ = made
    with safe_open(str(folder / "model.safetensors"), framework="pt") as file:
        kept = {name.removeprefix("matcher.") for name in list(file.keys())}
    shared = set(shared_names(model))
    assert "words.weight" in shared and "text_layers.0.fc1.weight" in shared and not kept & shared
    other = BriVLEncoder(make_checkpoint(tmp_path / "other", seed=3), device="cpu", precision="fp32")
    told = json.loads((folder / "config.json").read_text())
    again = tmp_path / "again"
    again.mkdir()
    for file in folder.iterdir():
        (again / file.name).write_bytes(file.read_bytes())
    (again / "config.json").write_text(json.dumps({**told, "regions": other.regions_fingerprint}))
    with pytest.raises(EncoderError, match="words of another text tower"):
        load_matcher(str(again), other)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"align_size": -1}, "align_size = -1: give 0 or more"),
        ({"shared_layers": 2, "text_layers": 1}, "shared_layers = 2"),
        ({"bank_texts": 4}, "a bank needs align_size"),
    ],
)
def test_sizes_that_do_not_go_together(changes: dict[str, int], said: str) -> None:
    with pytest.raises(EncoderError, match=said):
        MatcherConfig.from_dict({"kind": MatcherConfig.KIND, **changes})
