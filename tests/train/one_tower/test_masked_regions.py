"""UNITER's masked regions: what is hidden, what it is told by, and that it is learnt."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from brivl_search.encoders.one_tower.config import MatcherConfig
from brivl_search.encoders.one_tower.model import OneTower
from brivl_search.errors import EncoderError
from train.one_tower.fit import masked_task
from train.one_tower.losses import masked_regions, region_loss
from train.one_tower.recipe import MatchTraining

BOXES = torch.tensor([[0, 0, 0.5, 1], [0.5, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 0.5]])
IDS, MASK = torch.tensor([[2, 7, 8, 3], [2, 9, 3, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]).bool()


def tower(**changes: Any) -> OneTower:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 12, "region_size": 6, "width": 16, "heads": 2, "feedforward": 32, "joint_layers": 2,
        "max_length": 8, "dropout": 0.0, "masked_regions": True,
    }  # fmt: skip
    return OneTower(MatcherConfig(**{**sizes, **changes}))


def features() -> torch.Tensor:
    return torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(1))


def test_a_share_of_regions_is_masked_and_at_least_one() -> None:
    torch.manual_seed(0)
    there = torch.ones(500, 40, dtype=torch.bool)
    there[:, 30:] = False
    asked = masked_regions(there, 0.15)
    assert not asked[:, 30:].any() and abs(float(asked[:, :30].float().mean()) - 0.15) < 0.02
    assert (masked_regions(there, 0.0).sum(1) == 1).all()


def test_a_masked_region_is_a_learned_vector_and_is_not_seen() -> None:
    model = tower().eval()
    assert model.masked is not None
    asked = torch.zeros(2, 4, dtype=torch.bool)
    asked[0, 1] = True
    shown = features()
    hidden = model.masked.hide(shown, asked)
    assert torch.equal(hidden[0, 1], model.masked.mask) and torch.equal(hidden[~asked], shown[~asked])
    own, texts = torch.arange(2), model.texts(IDS, MASK)
    told = model.joint(texts, model.images(hidden, BOXES), own, own, first=8)[:, 4:]
    said = model.region_features(told[asked])
    # transposed: the weight that reads features writes them
    by_hand = model.masked.head(told[asked]) @ model.feature.weight + model.masked.bias
    assert torch.allclose(said, by_hand, atol=1e-6)
    assert torch.allclose(region_loss(model, texts, shown, BOXES, asked), (said - shown[asked]).square().mean())
    changed = shown.clone()
    changed[0, 1] = 50
    again = model.joint(texts, model.images(model.masked.hide(changed, asked), BOXES), own, own, first=8)[:, 4:]
    assert torch.equal(again, told)


def test_both_sides_tell_of_a_masked_region() -> None:
    model = tower()
    asked = torch.zeros(2, 4, dtype=torch.bool)
    asked[0, 1] = True
    shown, texts = features().requires_grad_(), model.texts(IDS, MASK)
    texts.tokens.retain_grad()
    region_loss(model, texts, shown, BOXES, asked).backward()
    assert shown.grad is not None and texts.tokens.grad is not None and model.masked is not None
    assert float(texts.tokens.grad[0].abs().sum()) > 0 and float(shown.grad[0, [0, 2, 3]].abs().sum()) > 0
    assert float(texts.tokens.grad[1].abs().sum()) == 0 and float(shown.grad[1].abs().sum()) == 0
    for weight in (model.masked.mask, model.feature.weight, model.joint_layers[0].key.weight):
        assert weight.grad is not None and float(weight.grad.abs().sum()) > 0


def test_the_loss_falls_on_a_fixed_batch() -> None:
    model = tower()
    asked = masked_regions(torch.ones(2, 4, dtype=torch.bool), 0.15)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = region_loss(model, model.texts(IDS, MASK), features(), BOXES, asked)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]


def test_words_and_regions_are_never_masked_in_one_batch() -> None:
    def tasks(**weights: float) -> list[str]:
        cfg = MatchTraining(steps=4, batch=2, lr=0.1, **weights)
        return [masked_task(cfg, step) for step in range(4)]

    assert tasks(word_weight=0.5, region_weight=1.0) == ["words", "regions", "words", "regions"]
    assert tasks(word_weight=0.0, region_weight=1.0) == ["regions"] * 4
    assert tasks(word_weight=0.5) == ["words"] * 4
    assert tasks(word_weight=0.0) == [""] * 4


def test_regions_that_do_not_see_the_text_are_refused() -> None:
    with pytest.raises(EncoderError, match="regions do not see the text"):
        MatcherConfig(masked_regions=True, one_way=True).check()
    with pytest.raises(ValueError, match=r"set matcher\.masked_regions"):
        model = tower(masked_regions=False)
        region_loss(model, model.texts(IDS, MASK), features(), BOXES, torch.ones(2, 4, dtype=torch.bool))


def test_a_folder_of_before_has_no_such_head() -> None:
    """UNITER-base as published has it where it is asked for; a matcher without it has the tensors it always had."""
    without, having = (set(tower(masked_regions=there).state_dict()) for there in (False, True))
    assert {name.split(".")[0] for name in having - without} == {"masked"} and not without - having
    assert MatcherConfig.from_dict({"kind": "one-tower"}) == MatcherConfig()
