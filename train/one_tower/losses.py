"""What teaches a matcher: aligned words and regions, image-text matching with hard negatives, masked words, masked
regions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from brivl_search.encoders.one_tower.model import OneTower, Side
from train.one_tower.queue import draw


@dataclass(frozen=True)
class Groups:
    """Pairs of a batch in groups of one true pair, first, and its negatives; (G, 1 + negatives), -1 where one is
    missing."""

    texts: Tensor
    images: Tensor


def hard_groups(texts: Tensor, images: Tensor, photos: Tensor, negatives: int, temperature: float) -> Groups:
    """For each of B texts its picture and hard pictures; for each of B pictures its text and hard texts.

    Args:
        texts, images: (B, dim), the two towers' vectors of B pairs.
        photos: int64 (B,); pairs of one photo are no negatives of each other.
        negatives: of each group.
        temperature: τ of the draw by cosine.
    """
    own = torch.arange(len(photos), device=photos.device)[:, None]
    barred = photos[:, None] == photos[None]
    cosines = texts @ images.T
    wrong_images = draw(cosines, barred, negatives, temperature)
    wrong_texts = draw(cosines.T, barred, negatives, temperature)
    width = wrong_images.shape[1]
    by_text = own.expand(-1, 1 + width).masked_fill(torch.cat([own.new_zeros(len(own), 1), wrong_images], 1) < 0, -1)
    by_image = own.expand(-1, 1 + width).masked_fill(torch.cat([own.new_zeros(len(own), 1), wrong_texts], 1) < 0, -1)
    return Groups(
        torch.cat([by_text, torch.cat([own, wrong_texts], 1)]),
        torch.cat([torch.cat([own, wrong_images], 1), by_image]),
    )


def matching_losses(model: OneTower, texts: Side, images: Side, groups: Groups) -> tuple[Tensor, Tensor]:
    """Matching: cross-entropy of every logit, true pairs weighing as much as all wrong ones. Ranking: cross-entropy of
    the true pair among its group (UNITER ranks hard negatives by a margin)."""
    there = groups.texts >= 0
    # A true pair stands in two groups, and is computed once.
    pairs = torch.stack([groups.texts[there], groups.images[there]])
    each, back = pairs.unique(dim=1, return_inverse=True)  # type: ignore[no-untyped-call]
    logits = model.logits(texts, images, each[0], each[1])[back]
    table = logits.new_full(groups.texts.shape, -torch.inf).masked_scatter(there, logits)
    alone = ~there[:, 1:].any(1)
    ranking = F.cross_entropy(table[~alone], table.new_zeros(int((~alone).sum()), dtype=torch.long))
    true, wrong = table[:, 0], table[:, 1:][there[:, 1:]]
    matching = (F.softplus(-true).mean() + F.softplus(wrong).mean()) / 2
    return matching, ranking


def alignment_loss(logits: Tensor, photos: Tensor) -> Tensor:
    """InfoNCE both ways of B pairs: every text among all pictures, every picture among all texts.

    Args:
        logits: (B, B), of texts and pictures.
        photos: int64 (B,); pairs of one photo are no negatives of each other.
    """
    own = torch.arange(len(photos), device=photos.device)
    same = (photos[:, None] == photos[None]) & (own[:, None] != own[None])
    logits = logits.masked_fill(same, -torch.inf)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def masked_words(ids: Tensor, mask: Tensor, share: float, mask_id: int, words: int, special: Tensor) -> Tensor:
    """Token ids with BERT's masking: of `share` of the words 80 % become [MASK], 10 % any word, 10 % stay.

    Args:
        ids, mask: (B, T).
        share: of the words.
        mask_id, words: of the vocabulary.
        special: ids that are never masked.

    Returns:
        int64 (2, B, T): the new ids, and the old ones where they are asked for, elsewhere -100.
    """
    asked = (torch.rand(ids.shape) < share) & mask & ~torch.isin(ids, special)
    how = torch.rand(ids.shape)
    new = ids.masked_fill(asked & (how < 0.8), mask_id)
    new = torch.where(asked & (how >= 0.9), torch.randint(words, ids.shape), new)
    return torch.stack([new, ids.masked_fill(~asked, -100)])


def word_loss(model: OneTower, ids: Tensor, wanted: Tensor, mask: Tensor, images: Side) -> Tensor:
    """Cross-entropy of masked words, read with the text's own picture beside them; 0 where none is masked.

    Args:
        ids, wanted: of `masked_words`.
        mask: (B, T).
        images: of B pictures.
    """
    own = torch.arange(len(ids))
    tokens = model.joint(model.texts(ids, mask), images, own, own, first=None)[:, : ids.shape[1]]
    asked = wanted >= 0
    if not bool(asked.any()):
        return tokens.sum() * 0
    return F.cross_entropy(model.word_logits(tokens[asked]).float(), wanted[asked])


def masked_regions(mask: Tensor, share: float) -> Tensor:
    """Which regions are masked, bool (B, R): `share` of each picture's in `mask`, and at least one."""
    chance = torch.rand(mask.shape).masked_fill(~mask, torch.inf)
    return ((chance < share) | (chance == chance.amin(1, keepdim=True))) & mask


def region_loss(model: OneTower, texts: Side, features: Tensor, boxes: Tensor, asked: Tensor) -> Tensor:
    """Mean squared error of masked regions, read with the picture's own text beside them (UNITER's MRFR).

    Args:
        model: all see all in it, and it has the head (`masked_regions`).
        texts: of B pictures, no word masked.
        features: float (B, R, region_size), as they are.
        boxes: (R, 4).
        asked: of `masked_regions`.

    Raises:
        ValueError: the matcher has no head for it.
    """
    if model.masked is None:
        raise ValueError("this matcher has no head for masked regions: set matcher.masked_regions")
    images, own = model.images(model.masked.hide(features, asked), boxes), torch.arange(len(features))
    words, regions = texts.tokens.shape[1], features.shape[1]
    tokens = model.joint(texts, images, own, own, first=words + regions)[:, words:]
    return F.mse_loss(model.region_features(tokens[asked]).float(), features[asked].float())
