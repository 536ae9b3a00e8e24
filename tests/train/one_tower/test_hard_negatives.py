"""The queue that remembers pairs, the draw of hard negatives, and the losses."""

import math

import torch

from brivl_search.encoders.one_tower.config import MatcherConfig
from brivl_search.encoders.one_tower.model import OneTower
from train.one_tower.losses import hard_groups, masked_words, matching_losses, word_loss
from train.one_tower.queue import PairQueue, draw

EYE = torch.eye(4)


def test_the_queue_keeps_each_entrys_pair() -> None:
    queue = PairQueue(3, 4)
    photos, captions = torch.tensor([5, 6]), torch.tensor([50, 60])
    queue.enqueue(EYE[:2], EYE[2:], photos, captions)
    queue.enqueue(EYE[2:], EYE[:2], torch.tensor([7, 8]), torch.tensor([70, 80]))
    assert queue.photos.tolist() == [8, 6, 7] and queue.captions.tolist() == [80, 60, 70]
    assert torch.equal(queue.images, EYE[[3, 1, 2]]) and torch.equal(queue.texts, EYE[[1, 3, 0]])


def test_more_than_the_queue_holds_leaves_its_last() -> None:
    queue = PairQueue(2, 4)
    queue.enqueue(EYE, EYE, torch.arange(4), torch.arange(4))
    assert sorted(queue.photos.tolist()) == [2, 3]
    queue.enqueue(EYE[:1], EYE[:1], torch.tensor([9]), torch.tensor([9]))
    assert 9 in queue.photos.tolist() and len(set(queue.photos.tolist()) & {2, 3}) == 1


def test_what_is_recalled_looks_like_a_partner_and_is_none() -> None:
    queue = PairQueue(6, 4)
    queue.enqueue(EYE, EYE, torch.arange(4), torch.arange(4))
    slots = queue.recall(EYE[[1]], EYE[[1]], torch.tensor([1]), 1, 0.01)
    assert 1 not in queue.photos[slots].tolist() and -1 not in queue.photos[slots].tolist()
    near = torch.nn.functional.normalize(EYE[[1]] + 0.2 * EYE[[3]])
    found = queue.recall(near, near, torch.tensor([1]), 1, 0.01)
    assert queue.photos[found].tolist() == [3]


def test_an_empty_queue_recalls_nothing() -> None:
    assert not len(PairQueue(8, 4).recall(EYE, EYE, torch.arange(4), 2, 0.05))


def test_the_draw_follows_the_softmax() -> None:
    torch.manual_seed(0)
    scores = torch.tensor([[0.1, 0.0, 5.0]]).repeat(4000, 1)
    barred = torch.tensor([[False, False, True]]).repeat(4000, 1)
    drawn = draw(scores, barred, 1, 0.1)
    share = float((drawn == 0).float().mean())
    assert abs(share - 1 / (1 + math.exp(-1))) < 0.03
    assert draw(scores[:1], barred[:1], 3, 0.1)[0, 2] == -1  # two may be drawn, not three


def test_groups_hold_the_true_pair_and_hard_ones() -> None:
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.rand(4, 8))
    photos = torch.tensor([1, 1, 2, 3])
    groups = hard_groups(vectors, vectors, photos, 3, 0.05)
    assert groups.texts.shape == (8, 4)
    assert torch.equal(groups.texts[:4, 0], groups.images[:4, 0])
    for texts, images in zip(groups.texts.tolist(), groups.images.tolist(), strict=True):
        assert texts[0] == images[0]
        for text, image in zip(texts[1:], images[1:], strict=True):
            assert (text < 0) == (image < 0)
            assert text < 0 or photos[text] != photos[image]
    # pairs of one photo have two strangers, the others three
    assert (groups.texts >= 0).sum(1).tolist() == [3, 3, 4, 4] * 2


def _model() -> OneTower:
    torch.manual_seed(0)
    return OneTower(
        MatcherConfig(
            vocab_size=30,
            region_size=5,
            width=16,
            heads=2,
            feedforward=16,
            text_layers=1,
            joint_layers=2,
            one_way=True,
            max_length=8,
            dropout=0.0,
        )
    )


def test_losses_are_those_of_each_pair() -> None:
    model = _model().eval()
    ids, mask = torch.randint(5, 30, (3, 4)), torch.ones(3, 4, dtype=torch.bool)
    texts, images = model.texts(ids, mask), model.images(torch.rand(3, 2, 5), torch.rand(2, 4))
    vectors = torch.nn.functional.normalize(torch.rand(3, 8))
    groups = hard_groups(vectors, vectors, torch.tensor([0, 1, 1]), 2, 0.05)
    matching, ranking = matching_losses(model, texts, images, groups)
    true, wrong, ranks = [], [], []
    for row_t, row_i in zip(groups.texts, groups.images, strict=True):
        there = row_t >= 0
        scores = model.logits(texts, images, row_t[there], row_i[there])
        true.append(scores[:1])
        wrong.append(scores[1:])
        ranks.append(torch.logsumexp(scores, 0) - scores[0])
    expected = (torch.cat(true).neg().exp().log1p().mean() + torch.cat(wrong).exp().log1p().mean()) / 2
    assert torch.allclose(matching, expected, atol=1e-5)
    assert torch.allclose(ranking, torch.stack(ranks).mean(), atol=1e-5)


def test_words_are_masked_as_bert_does() -> None:
    torch.manual_seed(0)
    ids = torch.randint(5, 30, (400, 20))
    ids[:, 0], ids[:, 9], ids[:, 10:] = 2, 3, 0
    mask = torch.arange(20).expand(400, 20) < 10
    new, wanted = masked_words(ids, mask, 0.3, 4, 30, torch.tensor([0, 2, 3, 4]))
    asked = wanted >= 0
    assert not asked[:, [0, 9]].any() and not asked[:, 10:].any()
    assert abs(float(asked[:, 1:9].float().mean()) - 0.3) < 0.03
    assert torch.equal(wanted[asked], ids[asked]) and torch.equal(new[~asked], ids[~asked])
    assert abs(float((new[asked] == 4).float().mean()) - 0.8) < 0.05


def test_masked_words_read_their_own_picture() -> None:
    model = _model()
    ids, mask = torch.randint(5, 30, (2, 5)), torch.ones(2, 5, dtype=torch.bool)
    shown = torch.rand(2, 3, 5, requires_grad=True)
    wanted = torch.full_like(ids, -100)
    wanted[0, 2] = 7
    word_loss(model, ids, wanted, mask, model.images(shown, torch.rand(3, 4))).backward()
    assert shown.grad is not None
    assert float(shown.grad[0].abs().sum()) > 0 and float(shown.grad[1].abs().sum()) == 0
    nothing = word_loss(model, ids, torch.full_like(ids, -100), mask, model.images(shown, torch.rand(3, 4)))
    assert float(nothing) == 0
