"""The caption loss beside the contrastive one: it reaches the image tower, and weight 0 is as if there were none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.image_tower import ImageTower
from brivl_search.encoders.brivl.text_tower import TextTower
from brivl_search.encoders.brivl.tokenizer import TextTokenizer
from brivl_search.encoders.captions.model import Captioner
from brivl_search.errors import UsageError
from tests.support.tiny import tiny_model, write_vocab
from train.captions.beside import CaptionTask, caption_task
from train.captions.losses import PADDING, caption_loss
from train.data.photos import Photo
from train.model.moco import Clip, Contrastive, MoCo
from train.model.towers import TwoTowers
from train.recipe import read_recipe

TEXTS = ["a red dog on grass", "草地上的狗", "the blue circle", "一只红色的狗"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return TextTokenizer(write_vocab(tmp_path_factory.mktemp("words")), 16)


def made(loss: str, tokenizer: TextTokenizer, weight: float) -> tuple[Contrastive, CaptionTask | None]:
    torch.manual_seed(0)
    config = ModelConfig.from_dict(tiny_model())
    towers = TwoTowers(ImageTower(config.image, config.dim), TextTower(config.text, config.dim))
    model = MoCo(towers, config.dim, queue_size=8) if loss == "moco" else Clip(towers)
    if not weight:
        return model, None
    recipe: Any = SimpleNamespace(captioner={"layers": 1, "dropout": 0.0})
    photos = [Photo("", {"en": TEXTS}, {"en": 1.0})]
    task = caption_task(recipe, config, towers.image, towers.text, tokenizer, photos)
    model.caption(task, weight)
    return model, task


def batch(tokenizer: TextTokenizer) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=generator)
    ids, mask = (torch.from_numpy(part) for part in tokenizer.batch(tokenizer.ids(TEXTS)))
    return pixels, ids, mask, torch.arange(2)


@pytest.mark.parametrize("loss", ["moco", "clip"])
def test_its_gradient_reaches_the_image_tower_and_the_decoder(loss: str, tokenizer: TextTokenizer) -> None:
    model, task = made(loss, tokenizer, 2.0)
    plain, _ = made(loss, tokenizer, 0.0)
    assert task is not None
    model.eval(), plain.eval()  # no dropout: the two losses differ by the task's alone
    whole, alone = model(*batch(tokenizer)), plain(*batch(tokenizer))
    assert float(whole.detach()) > float(alone.detach()) + 1.0
    whole.backward()
    alone.backward()
    tower, other = model.online.image, plain.online.image
    for name in ("project.weight", "backbones.0.net.conv_stem.weight", "head.fc2.weight"):
        ours, without = tower.get_parameter(name).grad, other.get_parameter(name).grad
        assert ours is not None and without is not None
        assert float(ours.abs().sum()) > 0, name
        # the projection and the head are reached by the picture's vector, the CNN by the regions as well
        assert not torch.allclose(ours, without, rtol=1e-3, atol=1e-7), name
    decoder = task.model
    for name in ("words.weight", "feature.weight", "vector.weight", "layers.0.across_key.weight"):
        grad = decoder.get_parameter(name).grad
        assert grad is not None and float(grad.abs().sum()) > 0, name
    for slow in model.slow.parameters():
        assert slow.grad is None


def test_without_weight_nothing_is_there(tokenizer: TextTokenizer) -> None:
    model, _ = made("moco", tokenizer, 0.0)
    again, _ = made("moco", tokenizer, 0.0)
    assert model.captions is None and not [name for name in model.state_dict() if name.startswith("captions")]
    members, told = model.told(model.online.prepare(batch(tokenizer)[0]), *batch(tokenizer)[1:3])
    assert told is None
    expected = again.online.embed_members(again.online.prepare(batch(tokenizer)[0]))
    assert torch.equal(members, expected)
    assert torch.equal(model(*batch(tokenizer)), again(*batch(tokenizer)))


def test_captions_are_read_by_their_script(tokenizer: TextTokenizer) -> None:
    _, task = made("moco", tokenizer, 1.0)
    assert task is not None
    task.eval()
    ids, mask = (torch.from_numpy(part) for part in tokenizer.batch(tokenizer.ids(TEXTS)))
    regions = torch.rand(2, 5, task.model.config.region_size)
    vectors = torch.nn.functional.normalize(torch.rand(2, task.model.config.vector_size))
    row = {int(number): at for at, number in enumerate(task.model.kept)}
    texts = [[row.get(number, 0) for number in some[1:-1]] for some in tokenizer.ids(TEXTS)]
    words = torch.full((4, max(map(len, texts))), PADDING)
    for at, some in enumerate(texts):
        words[at, : len(some)] = torch.tensor(some)
    starts = torch.tensor([[1, 0], [1, 0]])  # en, zh
    memory = task.model.look(regions, task.boxes, vectors)
    expected = caption_loss(task.model, starts, words.view(2, 2, -1), memory, 0.1)
    assert torch.allclose(task(regions, vectors, ids, mask), expected, atol=1e-5)
    assert Captioner.UNKNOWN not in task.model.kept[2:].tolist()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("[captioner]\nlayers = 2\n", "is for train.caption_weight"),
        ('frozen_towers = ["image"]\ncaption_weight = 1.0\n', "teaches the image tower, which is frozen"),
    ],
)
def test_a_recipe_that_is_wrong_is_told(lines: str, said: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'run = "r"\n[init]\nencoder = "brivl-mini"\n[[data]]\nfolder = "x"\n[train]\nsteps = 1\nbatch = 2\nlr = 0.1\n'
        + lines
    )
    with pytest.raises(UsageError, match=said):
        read_recipe(recipe, [])
