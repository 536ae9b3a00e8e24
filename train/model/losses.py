"""Contrastive losses: BriVL's cross-modal InfoNCE against queues; CLIP's and SigLIP's in-batch losses beside it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(
    queries: Tensor,
    keys: Tensor,
    ids: Tensor,
    queue: Tensor,
    queue_ids: Tensor,
    temperature: Tensor | float,
    *,
    in_batch_keys: Tensor | None = None,
    in_batch_ids: Tensor | None = None,
) -> Tensor:
    """One direction of BriVL's loss:  mean_j −log e^{q_j·k_j/τ} / (e^{q_j·k_j/τ} + Σ_n e^{q_j·n/τ}).

    The negatives n are the queue's entries and, if given, the batch's own momentum keys (`in_batch_negatives`).
    An entry of the same image as the query is no negative: it is left out of the sum.

    Args:
        queries: (B, dim) of the online tower, with gradient.
        keys: (B, dim), the momentum key of each query's own partner.
        ids: (B,) image id of each pair.
        queue: (K, dim); queue_ids: (K,) image ids, -1 in slots that were never filled.
        temperature: τ.
        in_batch_keys, in_batch_ids: (M, dim) and (M,), the momentum keys of this batch.

    Returns:
        Scalar.
    """
    positive = (queries * keys).sum(1, keepdim=True) / temperature
    negatives, negative_ids = [queue], [queue_ids]
    if in_batch_keys is not None and in_batch_ids is not None:
        negatives.append(in_batch_keys)
        negative_ids.append(in_batch_ids)
    every_id = torch.cat(negative_ids)
    scores = queries @ torch.cat(negatives).T / temperature  # before the mask: −∞ / τ has no gradient
    scores = scores.masked_fill((every_id[None, :] == ids[:, None]) | (every_id[None, :] < 0), float("-inf"))
    logits = torch.cat([positive, scores], 1)
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def text_numbers(token_ids: Tensor, token_mask: Tensor) -> Tensor:
    """A number for each text, int64 (N,): the same for the same tokens, in any batch and process, without padding.

    Args:
        token_ids: integers (N, T); or float states of the tokens (N, T, width), of which the first number tells.
        token_mask: bool (N, T), true where there is a token.
    """
    if token_ids.ndim == 3:
        token_ids = token_ids[..., 0].float().contiguous().view(torch.int32)
    places = np.random.default_rng(0).integers(1 << 62, size=token_ids.shape[1])  # a longer row begins with the same
    scrambled = (token_ids.long() + 1) * torch.from_numpy(places).to(token_ids.device)  # wraps around
    return (scrambled ^ (scrambled >> 31)).masked_fill(~token_mask.bool(), 0).sum(1)


def no_negatives(ids: Tensor, words: Tensor | None) -> Tensor:
    """bool (B, B): pairs of one image, or with one caption, are neither each other's negatives nor partners.

    Args:
        ids: (B,) image ids.
        words: (B,) `text_numbers`; None: no two captions are the same.
    """
    same = ids[:, None] == ids[None, :]
    if words is not None:
        same = same | (words[:, None] == words[None, :])
    return same & ~torch.eye(len(ids), dtype=torch.bool, device=ids.device)


def clip_loss(
    images: Tensor, texts: Tensor, ids: Tensor, temperature: Tensor | float, words: Tensor | None = None
) -> Tensor:
    """CLIP's loss: cross-entropy over the B × B matrix of the batch, images→texts plus texts→images.

    Summed like BriVL's, not halved, so that learning rates compare. Other pairs of the same image, or with the same
    caption, are left out.

    Args:
        images, texts: (B, dim), both with gradient.
        ids: (B,) image ids.
        temperature: τ, a number or a learned scalar.
        words: (B,) `text_numbers`; None: no two captions are the same.
    """
    logits = images @ texts.T / temperature
    logits = logits.masked_fill(no_negatives(ids, words), float("-inf"))
    target = torch.arange(len(ids), device=logits.device)
    return F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)


def siglip_loss(
    images: Tensor,
    texts: Tensor,
    ids: Tensor,
    temperature: Tensor | float,
    bias: Tensor | float,
    words: Tensor | None = None,
) -> Tensor:
    """SigLIP's loss (arXiv 2303.15343): each of the B × B pairs of the batch is judged by itself, own pair or not.

        −1/B Σ_i Σ_j log σ(y_ij (x_i·t_j / τ + b)),   y_ii = 1, else −1

    Other pairs of the same image, or with the same caption, are left out.

    Args:
        images, texts: (B, dim), both with gradient.
        ids: (B,) image ids.
        temperature: τ; bias: b. Numbers or learned scalars.
        words: (B,) `text_numbers`; None: no two captions are the same.
    """
    logits = images @ texts.T / temperature + bias
    own = torch.eye(len(ids), dtype=torch.bool, device=ids.device)
    signs = torch.where(own, 1.0, -1.0).to(logits.dtype)
    return -F.logsigmoid(signs * logits).masked_fill(no_negatives(ids, words), 0.0).sum() / len(ids)
