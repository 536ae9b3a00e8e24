"""The matcher's layers: who attends to whom, and that both sides decide."""

import pytest
import torch
from torch.nn import functional as F

from brivl_search.encoders.one_tower.config import MatcherConfig
from brivl_search.encoders.one_tower.model import OneTower, places
from brivl_search.errors import EncoderError

SIZES = {
    "vocab_size": 40, "region_size": 6, "width": 16, "heads": 2, "feedforward": 32, "text_layers": 1, "joint_layers": 2,
    "max_length": 12, "dropout": 0.0,
}  # fmt: skip
IDS = torch.tensor([[2, 7, 8, 9, 3], [2, 11, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
BOXES = torch.tensor([[0, 0, 0.5, 1], [0.5, 0, 1, 1], [0, 0, 1, 1]])


def tower(**changes: object) -> OneTower:
    torch.manual_seed(0)
    return OneTower(MatcherConfig(**{**SIZES, **changes})).eval()  # type: ignore[arg-type]


def features(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=[False, True], ids=["two ways", "one way"])
def model(request: pytest.FixtureRequest) -> OneTower:
    return tower(one_way=request.param)


def logits(
    model: OneTower, ids: torch.Tensor, mask: torch.Tensor, shown: torch.Tensor, *there: torch.Tensor
) -> torch.Tensor:
    own = torch.arange(len(ids))
    return model.logits(model.texts(ids, mask), model.images(shown, BOXES, *there), own, own)


def test_a_place_is_uniters_seven_numbers() -> None:
    assert places(torch.tensor([0.25, 0.5, 1.0, 1.0])).tolist() == [0.25, 0.5, 1.0, 1.0, 0.75, 0.5, 0.375]


def test_padding_of_texts_changes_nothing(model: OneTower) -> None:
    together = logits(model, IDS, MASK, features())
    alone = logits(model, IDS[1:, :3], MASK[1:, :3], features()[1:])
    assert torch.allclose(together[1:], alone, atol=1e-6)


def test_masked_regions_are_not_read(model: OneTower) -> None:
    there = torch.tensor([[True, False, True], [True, True, True]])
    shown = features()
    before = logits(model, IDS, MASK, shown, there)
    shown[0, 1] = 100
    assert torch.allclose(logits(model, IDS, MASK, shown, there), before)
    shown[1, 1] = 100
    assert not torch.allclose(logits(model, IDS, MASK, shown, there)[1], before[1])


def test_text_layers_do_not_see_the_picture() -> None:
    model = tower(text_layers=2, joint_layers=1)
    texts = model.texts(IDS, MASK)
    assert texts.tokens.shape == (2, 5, 16)  # made without any picture: once for a text
    assert not torch.allclose(texts.tokens[0, 1], model.texts(IDS[:1, :2], MASK[:1, :2]).tokens[0, 1])


def test_in_one_way_the_regions_stay_as_they_are() -> None:
    """What a picture's keys are does not depend on the text beside it, so they may be computed once."""
    model = tower(one_way=True)
    seen: list[torch.Tensor] = []
    model.joint_layers[1].key.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    images = model.images(features(), BOXES)
    own = torch.arange(2)
    model.joint(model.texts(IDS, MASK), images, own, own)
    assert any(one.shape == images.tokens.shape and torch.equal(one, images.tokens) for one in seen)


def test_two_ways_is_one_sequence() -> None:
    """UNITER's form, computed as one sequence through every layer without our short cuts."""
    model = tower(text_layers=0)
    texts, images = model.texts(IDS, MASK), model.images(features(), BOXES)
    x, mask = torch.cat([texts.tokens, images.tokens], 1), torch.cat([texts.mask, images.mask], 1)
    for layer in model.joint_layers:
        x = layer(x, mask)
    own = torch.arange(2)
    assert torch.allclose(model.joint(texts, images, own, own, first=None)[:, :5], x[:, :5], atol=1e-6)
    expected = model.match(torch.tanh(model.pooler(x[:, 0]))).squeeze(-1)
    assert torch.allclose(model.logits(texts, images, own, own), expected, atol=1e-6)


def test_a_layer_is_berts() -> None:
    from transformers.models.bert.configuration_bert import BertConfig
    from transformers.models.bert.modeling_bert import BertModel

    from brivl_search.encoders.brivl.config import ModelConfig
    from brivl_search.encoders.brivl.image_tower import ImageTower
    from brivl_search.encoders.brivl.text_tower import TextTower
    from tests.support.tiny import tiny_model
    from train.one_tower.start import from_towers

    config = ModelConfig.from_dict(tiny_model())
    text, image = TextTower(config.text, config.dim).eval(), ImageTower(config.image, config.dim)
    assert isinstance(text.backbone, BertModel) and isinstance(text.backbone.config, BertConfig)
    model = OneTower(
        MatcherConfig(
            vocab_size=120,
            region_size=image.project.in_features,
            width=32,
            heads=2,
            feedforward=64,
            text_layers=1,
            joint_layers=1,
            max_length=16,
        )
    ).eval()
    from_towers(model, text, image)
    expected = text.backbone(input_ids=IDS, attention_mask=MASK.long()).last_hidden_state
    assert torch.allclose(model.texts(IDS, MASK).tokens[MASK], expected[MASK], atol=1e-5)


def test_gradients_reach_both_sides(model: OneTower) -> None:
    shown = features().requires_grad_()
    model.train()
    out = logits(model, IDS, MASK, shown)
    F.softplus(-out).sum().backward()
    assert shown.grad is not None and (shown.grad.abs().sum((1, 2)) > 0).all()
    for name in ("words.weight", "place.weight", "feature.weight", "match.weight"):
        gradient = model.get_parameter(name).grad
        assert gradient is not None and float(gradient.abs().sum()) > 0, name
    assert float(model.words.weight.grad[7].abs().sum()) > 0  # type: ignore[index]
    assert float(model.words.weight.grad[20].abs().sum()) == 0  # type: ignore[index]


def test_pairs_are_chosen_by_row(model: OneTower) -> None:
    texts, images = model.texts(IDS, MASK), model.images(features(), BOXES)
    grid = model.logits(texts, images, torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])).view(2, 2)
    own = torch.arange(2)
    assert torch.allclose(grid.diagonal(), model.logits(texts, images, own, own), atol=1e-6)
    assert not torch.allclose(grid[0, 0], grid[0, 1]) and not torch.allclose(grid[0, 0], grid[1, 0])


def test_the_defaults_are_uniter_base() -> None:
    with torch.device("meta"):
        model = OneTower(MatcherConfig())
    trunk = sum(p.numel() for layer in model.joint_layers for p in layer.parameters())
    pooler = sum(p.numel() for p in model.pooler.parameters())
    assert trunk + pooler == 85_645_056  # BERT-base's twelve layers and pooler


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "other"}, "not of a matcher"),
        ({"version": 9}, "version 9"),
        ({"width": 10, "heads": 3}, "must divide width"),
        ({"joint_layers": 0}, "joint_layers = 0: give 1 or more"),
        ({"one_way": 1}, "one_way = 1 is no bool"),
        ({"depth": 3}, "unknown field 'depth'"),
    ],
)
def test_a_config_that_is_wrong_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(EncoderError, match=said):
        MatcherConfig.from_dict({**MatcherConfig(**SIZES).to_dict(), **changes})  # type: ignore[arg-type]
