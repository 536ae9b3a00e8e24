"""Cross-modal MoCo as in BriVL: momentum towers and a queue of keys per modality. CLIP and SigLIP beside it.

One step: `update_momentum` (θm ← m·θm + (1−m)·θ, parameters only), keys by the momentum towers, both InfoNCE losses
against the queues, and only then `enqueue`. Under `torchrun` keys are gathered from all processes first.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from brivl_search.encoders.brivl.image_tower import mean_direction
from train.distributed import gather, gather_with_gradient
from train.model.losses import clip_loss, info_nce, siglip_loss, text_numbers
from train.model.towers import TwoTowers


class KeyQueue(nn.Module):
    """A ring of the last `size` keys and the image each belongs to; empty slots have id -1."""

    keys: Tensor
    ids: Tensor
    head: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(size, dim))
        self.register_buffer("ids", torch.full((size,), -1, dtype=torch.long))
        self.register_buffer("head", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def enqueue(self, keys: Tensor, ids: Tensor) -> None:
        """Writes keys (B, dim) over the oldest; a batch larger than the ring leaves its last `size` keys."""
        size = len(self.ids)
        head = int(self.head)
        slots = (torch.arange(len(keys), device=ids.device) + head) % size
        kept = slice(max(len(keys) - size, 0), None)
        self.keys[slots[kept]] = keys[kept].to(self.keys.dtype)
        self.ids[slots[kept]] = ids[kept]
        self.head.fill_((head + len(keys)) % size)


class Contrastive(nn.Module):
    """Online towers and their slow copies, θm ← m·θm + (1−m)·θ; τ, a number or learned."""

    online: TwoTowers
    slow: TwoTowers

    def __init__(self, online: TwoTowers, momentum: float, temperature: float, learned_temperature: bool) -> None:
        super().__init__()
        self.online = online
        self.slow = copy.deepcopy(online).requires_grad_(False)
        self.momentum = momentum
        self.fixed_temperature = temperature
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log()) if learned_temperature else None
        self.captions: nn.Module | None = None
        self.caption_weight = 0.0

    def caption(self, task: nn.Module, weight: float) -> None:
        """Adds `weight` times the loss of a task that reads regions and vectors of the online image tower, and the
        captions (`train.captions.beside`)."""
        self.captions, self.caption_weight = task, weight

    def told(self, images: Tensor, token_ids: Tensor, token_mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """What each head says of prepared images (members, N, dim), and the caption loss; None: there is no task."""
        if self.captions is None:
            return self.online.embed_members(images), None
        members, regions = self.online.embed_members_and_regions(images)
        loss: Tensor = self.captions(regions, mean_direction(members), token_ids, token_mask)
        return members, self.caption_weight * loss

    @property
    def temperature(self) -> Tensor | float:
        """τ. A learned one does not fall below 0.01, as in CLIP."""
        if self.log_temperature is None:
            return self.fixed_temperature
        return self.log_temperature.exp().clamp(min=0.01)

    def scalars(self) -> list[nn.Parameter]:
        """What learns beside the towers."""
        return [] if self.log_temperature is None else [self.log_temperature]

    def train(self, mode: bool = True) -> Contrastive:
        """Keys are made without dropout; a BatchNorm that is not frozen uses and tracks its own batches, as in MoCo."""
        super().train(mode)
        self.slow.eval()
        for slow, fast in zip(self.slow.modules(), self.online.modules(), strict=True):
            if isinstance(slow, nn.modules.batchnorm._BatchNorm):
                slow.train(fast.training)
        return self

    def losses(
        self, images: Tensor, token_ids: Tensor, token_mask: Tensor, ids: Tensor, parts: int = 1
    ) -> Iterator[Tensor]:
        raise NotImplementedError

    def forward(self, images: Tensor, token_ids: Tensor, token_mask: Tensor, ids: Tensor) -> Tensor:
        """One step's loss, in one part."""
        (loss,) = self.losses(images, token_ids, token_mask, ids)
        return loss

    @torch.no_grad()
    def update_momentum(self) -> None:
        """θm ← m·θm + (1−m)·θ for every parameter that learns; buffers (BatchNorm statistics) stay."""
        copies = dict(self.slow.named_parameters())
        for name, fast in self.online.named_parameters():
            if fast.requires_grad:  # the others are equal
                copies[name].lerp_(fast, 1 - self.momentum)


class MoCo(Contrastive):
    """Online towers, momentum towers and the two queues; `forward` is one step's loss."""

    def __init__(
        self,
        online: TwoTowers,
        dim: int,
        *,
        queue_size: int = 9600,
        momentum: float = 0.99,
        temperature: float = 0.07,
        learned_temperature: bool = False,
        in_batch_negatives: bool = False,
        text_weight: float = 0.0,
    ) -> None:
        """`text_weight`: share of a third InfoNCE, from every caption to another one of its image (not BriVL's)."""
        super().__init__(online, momentum, temperature, learned_temperature)
        self.image_queue = KeyQueue(queue_size, dim)
        self.text_queue = KeyQueue(queue_size, dim)
        self.in_batch_negatives = in_batch_negatives
        self.text_weight = text_weight

    @torch.no_grad()
    def keys(self, prepared: Tensor, token_ids: Tensor, token_mask: Tensor, parts: int = 1) -> tuple[Tensor, Tensor]:
        """Momentum keys of N images and N·C captions, made in `parts` chunks: (N, dim), (N·C, dim)."""
        image_keys = torch.cat([self.slow.embed_images(part) for part in prepared.chunk(parts)])
        texts = zip(token_ids.chunk(parts), token_mask.chunk(parts), strict=True)
        return image_keys, torch.cat([self.slow.embed_texts(*part) for part in texts])

    def losses(
        self, images: Tensor, token_ids: Tensor, token_mask: Tensor, ids: Tensor, parts: int = 1
    ) -> Iterator[Tensor]:
        """One step's loss in `parts` shares, to be back-propagated one by one; their sum is the whole batch's.

        L = L_i2t + L_t2i (+ `text_weight` · L_t2t) over N images with C captions each. Keys need no gradient. So those
        of the whole batch, and of every process under `torchrun`, are there before the first share. Where BatchNorm
        is frozen, gradient accumulation and more processes therefore give the loss of one large batch: with its
        in-batch negatives, and with one entry in the queue for each of its pairs. Where it is not, each part is
        normalised by its own statistics.
        Advances momentum towers before the first share and queues after the last.

        Args:
            images: (N, ...) as `TwoTowers.prepare` takes them.
            token_ids, token_mask: (N·C, T), the C captions of image 0 first.
            ids: (N,) image ids.
            parts: divides N.
        """
        captions = len(token_ids) // len(ids)
        if self.text_weight and captions < 2:
            raise SystemExit("train.text_weight ties captions of one image: set train.captions_per_image to 2 or more")
        pair_ids = ids.repeat_interleave(captions)
        images = self.online.prepare(images)
        self.update_momentum()
        image_keys, text_keys = self.keys(images, token_ids, token_mask, parts)
        all_images, all_texts, all_ids = gather(image_keys), gather(text_keys), gather(ids)
        all_pairs = all_ids.repeat_interleave(captions)
        next_texts = (
            torch.unflatten(text_keys, 0, (-1, captions)).roll(1, 1).flatten(0, 1)
        )  # another caption of the image
        inside = self.in_batch_negatives
        # Copies, because the backward pass reads them after new keys have been written.
        image_queue, image_queue_ids = self.image_queue.keys.clone(), self.image_queue.ids.clone()
        text_queue, text_queue_ids = self.text_queue.keys.clone(), self.text_queue.ids.clone()
        for part in range(parts):
            rows = slice(part * len(ids) // parts, (part + 1) * len(ids) // parts)
            pairs = slice(rows.start * captions, rows.stop * captions)
            members, told = self.told(
                images[rows], token_ids[pairs], token_mask[pairs]
            )  # each is taught by itself; the key is their mean
            count = len(members)
            image_vectors = members.repeat_interleave(captions, 1).flatten(0, 1)
            text_vectors = self.online.embed_texts(token_ids[pairs], token_mask[pairs])
            with torch.autocast(image_vectors.device.type, enabled=False):
                loss = info_nce(
                    image_vectors, text_keys[pairs].repeat(count, 1), pair_ids[pairs].repeat(count),
                    text_queue, text_queue_ids,
                    self.temperature,
                    in_batch_keys=all_texts if inside else None, in_batch_ids=all_pairs if inside else None,
                ) + info_nce(
                    text_vectors, image_keys[rows].repeat_interleave(captions, 0), pair_ids[pairs],
                    image_queue, image_queue_ids, self.temperature,
                    in_batch_keys=all_images if inside else None, in_batch_ids=all_ids if inside else None,
                )  # fmt: skip
                if self.text_weight:
                    loss = loss + self.text_weight * info_nce(
                        text_vectors, next_texts[pairs], pair_ids[pairs], text_queue, text_queue_ids, self.temperature,
                        in_batch_keys=all_texts if inside else None, in_batch_ids=all_pairs if inside else None,
                    )  # fmt: skip
            yield (loss if told is None else loss + told) / parts
        self.image_queue.enqueue(all_images, all_ids)
        self.text_queue.enqueue(all_texts, all_pairs)


class InBatch(Contrastive):
    """A baseline beside MoCo: the same towers under a loss over the pairs of the batch, with τ fixed or learned.

    The slow towers make no keys here; they are an average of the weights, evaluated as MoCo's are. A short run wants a
    smaller `momentum`: at 0.99 they are a hundred steps behind.
    """

    def loss_of(self, images: Tensor, texts: Tensor, ids: Tensor, words: Tensor) -> Tensor:
        """(B, dim) images and texts, image ids (B,), numbers of the texts (B,) → the loss."""
        raise NotImplementedError

    def losses(
        self, images: Tensor, token_ids: Tensor, token_mask: Tensor, ids: Tensor, parts: int = 1
    ) -> Iterator[Tensor]:
        """As `MoCo.losses`, in one part: every pair's loss needs the vectors of all others with their gradients.

        Under `torchrun` vectors are gathered from all processes, with gradients.
        """
        if parts != 1:
            raise SystemExit(
                "an in-batch loss needs its whole batch at once: set train.accumulate = 1, or train.loss = moco"
            )
        captions = len(token_ids) // len(ids)
        self.update_momentum()
        members, told = self.told(self.online.prepare(images), token_ids, token_mask)
        members = members.transpose(0, 1)
        image_vectors = gather_with_gradient(members).repeat_interleave(captions, 0).transpose(0, 1)
        text_vectors = gather_with_gradient(self.online.embed_texts(token_ids, token_mask))
        with torch.autocast(image_vectors.device.type, enabled=False):
            pair_ids = gather(ids).repeat_interleave(captions)
            words = gather(text_numbers(token_ids, token_mask))
            losses = [self.loss_of(vectors, text_vectors, pair_ids, words) for vectors in image_vectors]
            loss = torch.stack(losses).mean()
            yield loss if told is None else loss + told


class Clip(InBatch):
    """CLIP's loss."""

    def __init__(
        self,
        online: TwoTowers,
        *,
        momentum: float = 0.99,
        temperature: float = 0.07,
        learned_temperature: bool = False,
    ) -> None:
        super().__init__(online, momentum, temperature, learned_temperature)

    def loss_of(self, images: Tensor, texts: Tensor, ids: Tensor, words: Tensor) -> Tensor:
        return clip_loss(images, texts, ids, self.temperature, words)


class SigLip(InBatch):
    """SigLIP's loss; its bias is always learned, τ if asked."""

    def __init__(
        self,
        online: TwoTowers,
        *,
        momentum: float = 0.99,
        temperature: float = 0.1,
        learned_temperature: bool = False,
        bias: float = -10.0,
    ) -> None:
        super().__init__(online, momentum, temperature, learned_temperature)
        self.bias = nn.Parameter(torch.tensor(bias))

    def scalars(self) -> list[nn.Parameter]:
        return [*super().scalars(), self.bias]

    def loss_of(self, images: Tensor, texts: Tensor, ids: Tensor, words: Tensor) -> Tensor:
        return siglip_loss(images, texts, ids, self.temperature, self.bias, words)
