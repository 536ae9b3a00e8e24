"""The loss against a plain reference written from the formula, the momentum update, the ring queue."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.text_tower import TextTower
from tests.support.recipes import training
from tests.support.tiny import tiny_model
from train.model.build import build_towers, freeze_text, objective, only_its_mlp_learns
from train.model.losses import clip_loss, info_nce, siglip_loss, text_numbers
from train.model.moco import Clip, KeyQueue, MoCo
from train.model.towers import SentenceCache, TwoTowers


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def reference(q, k, ids, queue, queue_ids, tau, batch_keys=None, batch_ids=None):
    """mean_j −log e^{q·k/τ} / (e^{q·k/τ} + Σ e^{q·n/τ}), one query and one negative at a time."""
    total = 0.0
    for j in range(len(q)):
        positive = math.exp(float(q[j] @ k[j]) / tau)
        below = positive
        negatives = list(zip(queue, queue_ids, strict=True))
        if batch_keys is not None:
            negatives += list(zip(batch_keys, batch_ids, strict=True))
        for n, owner in negatives:
            if int(owner) >= 0 and int(owner) != int(ids[j]):
                below += math.exp(float(q[j] @ n) / tau)
        total -= math.log(positive / below)
    return total / len(q)


def test_info_nce_is_the_formula() -> None:
    q, k, queue = unit(5, 8, seed=1), unit(5, 8, seed=2), unit(12, 8, seed=3)
    ids = torch.tensor([0, 1, 2, 2, 4])
    queue_ids = torch.tensor([7, 8, 9, 0, 1, 2, 2, 5, -1, -1, 11, 12])
    got = info_nce(q, k, ids, queue, queue_ids, 0.07)
    assert got.item() == np.float32(reference(q, k, ids, queue, queue_ids, 0.07)) or math.isclose(
        got.item(), reference(q, k, ids, queue, queue_ids, 0.07), rel_tol=1e-5
    )


def test_info_nce_with_in_batch_negatives_leaves_out_the_same_image() -> None:
    q, k, queue = unit(6, 8, seed=1), unit(6, 8, seed=2), unit(4, 8, seed=3)
    ids, queue_ids = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 5, 6, 2])
    got = info_nce(q, k, ids, queue, queue_ids, 0.1, in_batch_keys=k, in_batch_ids=ids)
    want = reference(q, k, ids, queue, queue_ids, 0.1, k, ids)
    assert math.isclose(got.item(), want, rel_tol=1e-5)
    without = info_nce(q, k, ids, queue, queue_ids, 0.1)
    assert got.item() > without.item()


def test_an_empty_queue_without_in_batch_negatives_gives_zero() -> None:
    q = unit(3, 8)
    loss = info_nce(q, q, torch.arange(3), torch.zeros(4, 8), torch.full((4,), -1), 0.07)
    assert loss.item() == 0.0


def test_clip_loss_is_two_cross_entropies() -> None:
    a, b, ids = unit(4, 8, seed=1), unit(4, 8, seed=2), torch.arange(4)
    logits = (a @ b.T / 0.05).double().numpy()
    rows = [-logits[i, i] + np.log(np.exp(logits[i]).sum()) for i in range(4)]
    columns = [-logits[i, i] + np.log(np.exp(logits[:, i]).sum()) for i in range(4)]
    assert math.isclose(clip_loss(a, b, ids, 0.05).item(), np.mean(rows) + np.mean(columns), rel_tol=1e-4)
    same = clip_loss(a, b, torch.tensor([0, 0, 1, 2]), 0.05).item()
    assert same < clip_loss(a, b, ids, 0.05).item()


def test_siglip_judges_every_pair_by_itself() -> None:
    a, b, ids = unit(4, 8, seed=1).double(), unit(4, 8, seed=2).double(), torch.tensor([0, 0, 1, 2])
    want = 0.0
    for i in range(4):
        for j in range(4):
            sign = 1 if i == j else -1
            if i == j or ids[i] != ids[j]:  # another caption of the same image is no wrong answer
                want += math.log1p(math.exp(-sign * (float(a[i] @ b[j]) / 0.1 - 3.0)))
    assert math.isclose(siglip_loss(a, b, ids, 0.1, -3.0).item(), want / 4, rel_tol=1e-9)


def test_the_queue_is_a_ring() -> None:
    queue = KeyQueue(5, 2)
    queue.enqueue(torch.full((3, 2), 1.0), torch.tensor([1, 2, 3]))
    assert queue.ids.tolist() == [1, 2, 3, -1, -1] and int(queue.head) == 3
    queue.enqueue(torch.full((4, 2), 2.0), torch.tensor([4, 5, 6, 7]))
    assert queue.ids.tolist() == [6, 7, 3, 4, 5] and int(queue.head) == 2
    assert queue.keys[:, 0].tolist() == [2, 2, 1, 2, 2]
    queue.enqueue(torch.arange(14.0).view(7, 2), torch.arange(10, 17))  # longer than the ring: its last five stay
    assert sorted(queue.ids.tolist()) == [12, 13, 14, 15, 16] and int(queue.head) == 4
    newest = queue.ids[(int(queue.head) - 1) % 5]
    assert newest == 16


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 8)
        self.register_buffer("statistic", torch.zeros(1))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return F.normalize(self.linear(x), dim=-1)


def moco(**options: object) -> MoCo:
    torch.manual_seed(0)
    return MoCo(TwoTowers(Toy(), Toy()), 8, queue_size=12, temperature=0.07, **options)  # type: ignore[arg-type]


def test_momentum_update_is_exact_and_leaves_buffers() -> None:
    model = moco(momentum=0.9)
    before = [p.clone() for p in model.slow.parameters()]
    with torch.no_grad():
        for p in model.online.parameters():
            p.add_(1.0)
        model.online.image.statistic.fill_(5.0)
    model.update_momentum()
    for old, slow, fast in zip(before, model.slow.parameters(), model.online.parameters(), strict=True):
        torch.testing.assert_close(slow, 0.9 * old + 0.1 * fast.detach())
    assert model.slow.image.statistic.item() == 0.0
    assert not any(p.requires_grad for p in model.slow.parameters())


@pytest.mark.parametrize("loss", ["moco", "clip", "siglip"])
def test_every_loss_averages_weights_at_the_recipes_pace(loss: str) -> None:
    """What is measured and kept are the slow towers: of a short run at 0.99 they are still half the start."""
    cfg = training(loss=loss, momentum=0.9)
    model = objective(TwoTowers(Toy(), Toy()), 8, cfg)
    before = [p.clone() for p in model.slow.parameters()]
    with torch.no_grad():
        for p in model.online.parameters():
            p.add_(1.0)
    model(torch.randn(3, 4), torch.randn(3, 4), torch.ones(3, 1, dtype=torch.bool), torch.arange(3))
    for old, slow, fast in zip(before, model.slow.parameters(), model.online.parameters(), strict=True):
        torch.testing.assert_close(slow, 0.9 * old + 0.1 * fast.detach())
    assert "momentum" not in cfg.unused()
    assert ("queue_size" in training(loss=loss, queue_size=8).unused()) == (loss != "moco")


def test_texts_have_numbers_by_their_tokens_alone() -> None:
    short, long = torch.tensor([[5, 9], [9, 5], [5, 9]]), torch.tensor([[5, 9, 7, 1], [5, 9, 0, 0], [5, 9, 0, 3]])
    a = text_numbers(short, torch.ones(3, 2, dtype=torch.bool))
    b = text_numbers(long, torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 1]], dtype=torch.bool))
    assert a.dtype == torch.int64 and a[0] == a[2] == b[1] and len({*a.tolist(), *b.tolist()}) == 4
    many = torch.randint(0, 50, (20_000, 3), generator=torch.Generator().manual_seed(0))
    numbers = text_numbers(many, torch.ones(20_000, 3, dtype=torch.bool))
    assert len({*numbers.tolist()}) == len({*map(tuple, many.tolist())})


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_a_photo_with_the_same_caption_is_no_negative(loss: str) -> None:
    """Of a hundred photos of "a cat" none is wrong for the words of another: the loss is that without the pair."""
    torch.manual_seed(0)
    images, texts = torch.randn(3, 4), torch.tensor([[5, 6, 0], [5, 6, 0], [7, 8, 9]])
    mask, vectors = texts > 0, unit(10, 8, seed=3)

    class Words(nn.Module):
        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return vectors[x[:, 0]]

    model = objective(TwoTowers(Toy(), Words()), 8, training(loss=loss, temperature=0.1))
    got = model(images, texts, mask, torch.tensor([0, 1, 2])).item()
    logits = (model.online.image(images).detach() @ vectors[texts[:, 0]].T / 0.1).double().numpy()
    logits[0, 1] = logits[1, 0] = -np.inf
    if loss == "siglip":
        judged = np.log1p(np.exp(np.where(np.eye(3) > 0, -1, 1) * (logits - 10)))
        judged[0, 1] = judged[1, 0] = 0
        assert math.isclose(got, judged.sum() / 3, rel_tol=1e-5)
    else:
        ways = [np.log(np.exp(m).sum(1)) - np.diag(m) for m in (logits, logits.T)]
        assert math.isclose(got, ways[0].mean() + ways[1].mean(), rel_tol=1e-5)


@pytest.mark.parametrize("text_weight", [0.0, 0.5])
def test_a_step_uses_momentum_keys_then_enqueues_them(text_weight: float) -> None:
    model = moco(momentum=0.5, text_weight=text_weight)
    with torch.no_grad():
        for p in model.online.parameters():
            p.add_(0.3)
    images, texts, ids = torch.randn(2, 4), torch.randn(4, 4), torch.tensor([3, 9])
    model.text_queue.enqueue(unit(3, 8, seed=5), torch.tensor([1, 3, 4]))
    model.image_queue.enqueue(unit(3, 8, seed=6), torch.tensor([1, 3, 4]))
    text_queue, image_queue = model.text_queue.keys.clone(), model.image_queue.keys.clone()
    text_ids, image_ids = model.text_queue.ids.clone(), model.image_queue.ids.clone()
    loss = model(images, texts, torch.ones(4, 1, dtype=torch.bool), ids)
    with torch.no_grad():  # `slow` was updated once, before the keys
        image_keys, text_keys = model.slow.image(images), model.slow.text(texts)
        image_vectors, text_vectors = model.online.image(images), model.online.text(texts)
    pair_ids, pairs = ids.repeat_interleave(2), torch.tensor([0, 0, 1, 1])
    want = reference(image_vectors[pairs], text_keys, pair_ids, text_queue, text_ids, 0.07)
    want += reference(text_vectors, image_keys[pairs], pair_ids, image_queue, image_ids, 0.07)
    want += text_weight * reference(text_vectors, text_keys[[1, 0, 3, 2]], pair_ids, text_queue, text_ids, 0.07)
    assert math.isclose(loss.item(), want, rel_tol=1e-4)
    assert model.text_queue.ids.tolist()[3:7] == [3, 3, 9, 9] and model.image_queue.ids.tolist()[3:5] == [3, 9]
    torch.testing.assert_close(model.text_queue.keys[3:7], text_keys)
    loss.backward()
    assert all(p.grad is not None for p in model.online.parameters())
    assert all(p.grad is None for p in model.slow.parameters())


def test_tied_captions_need_two_of_an_image() -> None:
    model = moco(text_weight=0.5)
    with pytest.raises(SystemExit, match="captions_per_image"):
        model(torch.randn(2, 4), torch.randn(2, 4), torch.ones(2, 1, dtype=torch.bool), torch.arange(2))


def test_clip_learns_its_temperature() -> None:
    model = Clip(TwoTowers(Toy(), Toy()), temperature=0.07, learned_temperature=True)
    model(torch.randn(3, 4), torch.randn(3, 4), torch.ones(3, 1, dtype=torch.bool), torch.arange(3)).backward()
    assert model.log_temperature.grad is not None


def test_moco_learns_its_temperature_in_parts_too() -> None:
    found = []
    for parts in (1, 2):
        model = moco(learned_temperature=True, in_batch_negatives=True)
        model.text_queue.enqueue(unit(3, 8, seed=5), torch.tensor([7, 8, 9]))
        torch.manual_seed(1)
        batch = torch.randn(4, 4), torch.randn(4, 4), torch.ones(4, 1, dtype=torch.bool), torch.arange(4)
        for share in model.losses(*batch, parts):
            share.backward()
        found.append(model.log_temperature.grad)
    torch.testing.assert_close(found[0], found[1])
    assert found[0].abs() > 1e-3 and moco().scalars() == []


def frozen_text() -> TextTower:
    torch.manual_seed(0)
    model = tiny_model()
    model["text"]["head"] = {"layers": 0, "mlp_dropout": 0.3}
    model["text"]["backbone"] |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = ModelConfig.from_dict(model)
    text = TextTower(config.text, config.dim)
    freeze_text(text, 1)
    return text


def test_a_frozen_text_is_read_once() -> None:
    text = frozen_text()
    assert only_its_mlp_learns(text)
    ids = torch.tensor([[2, 40, 41, 3], [2, 42, 3, 0], [2, 40, 41, 3]])
    cache = SentenceCache()
    model = MoCo(TwoTowers(Toy(), text, sentences=cache), 32, queue_size=4)
    assert model.slow.sentences is cache
    model.eval()
    torch.testing.assert_close(model.online.embed_texts(ids, ids > 0), text(ids, ids > 0))
    assert len(cache.known) == 2
    model.train()
    with torch.no_grad():
        text.backbone.embeddings.word_embeddings.weight.zero_()  # what is known is not read again
    before = cache(text, ids[:, :4], ids > 0)
    assert not torch.allclose(before, text.pool(ids, ids > 0))
    model.online.embed_texts(ids, ids > 0).sum().backward()
    assert text.head.fc1.weight.grad is not None and text.backbone.embeddings.word_embeddings.weight.grad is None


@pytest.mark.parametrize("change", ["trained layer", "dropout", "self-attention"])
def test_a_text_that_can_change_is_not_remembered(change: str) -> None:
    text = frozen_text()
    if change == "trained layer":
        text.backbone.encoder.layer[0].requires_grad_(True)
    elif change == "dropout":
        text.backbone.embeddings.dropout.p = 0.1
    else:
        layer = nn.TransformerEncoderLayer(32, 2, 32)
        text.head.attention = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    assert not only_its_mlp_learns(text)


def test_a_frozen_tower_gives_the_same_vectors_in_training_and_reads_a_text_once() -> None:
    torch.manual_seed(0)
    model = tiny_model()
    model["text"]["head"] = model["text"]["head"] | {"dropout": 0.5, "mlp_dropout": 0.5}
    towers = build_towers(ModelConfig.from_dict(model), training(frozen_towers=["text"]))
    ids = torch.tensor([[2, 40, 41, 3], [2, 42, 3, 0], [2, 40, 41, 3]])
    trained = MoCo(towers, 32, queue_size=4).train()
    assert not any(p.requires_grad for p in towers.text.parameters()) and not towers.text.training
    assert towers.image.training
    vectors = trained.online.embed_texts(ids, ids > 0)
    torch.testing.assert_close(vectors, towers.text.eval()(ids, ids > 0))
    assert trained.online.sentences is trained.slow.sentences and len(trained.slow.sentences.known) == 2
    with pytest.raises(ValidationError, match="'image' or 'text'"):
        training(frozen_towers=["texts"])


def test_every_member_is_taught_and_the_key_is_their_mean() -> None:
    torch.manual_seed(0)
    model = tiny_model(image=tiny_model()["image"] | {"members": 2})
    towers = build_towers(ModelConfig.from_dict(model), training(frozen_towers=["text"]))
    step = MoCo(towers, 32, queue_size=12, momentum=1.0, in_batch_negatives=True).train()
    towers.text.eval()
    images = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    texts, ids = torch.randint(5, 100, (6, 4)), torch.tensor([7, 8, 9])
    mask, pairs = torch.ones(6, 4, dtype=torch.bool), ids.repeat_interleave(2)
    with torch.no_grad():
        members = towers.image.embed_members([cnn(images) for cnn in towers.image.backbones])
        image_keys, text_keys = F.normalize(members.mean(0), dim=1), towers.text(texts, mask)
        empty = step.image_queue.keys, step.image_queue.ids

        def inside(keys: torch.Tensor, owners: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"in_batch_keys": keys, "in_batch_ids": owners}

        each = [
            info_nce(m.repeat_interleave(2, 0), text_keys, pairs, *empty, 0.07, **inside(text_keys, pairs))
            for m in members
        ]
        own = image_keys.repeat_interleave(2, 0)
        other = info_nce(text_keys, own, pairs, *empty, 0.07, **inside(image_keys, ids))
    loss = step(images, texts, mask, ids)
    torch.testing.assert_close(loss.detach(), torch.stack(each).mean() + other)
    loss.backward()
    assert towers.image.project.weight.grad is not None and towers.image.members[0].project.weight.grad is not None
    torch.testing.assert_close(step.image_queue.keys[:3], image_keys)
    vectors = [clip_loss(m.repeat_interleave(2, 0), text_keys, pairs, 0.07) for m in members]
    clip = Clip(towers, temperature=0.07).train()
    torch.testing.assert_close(clip(images, texts, mask, ids).detach(), torch.stack(vectors).mean())
