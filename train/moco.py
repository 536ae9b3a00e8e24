"""Cross-modal MoCo as in BriVL: momentum towers and a queue of keys per modality.

One step: `update_momentum` (θm ← m·θm + (1−m)·θ, parameters only), keys by the momentum towers, both InfoNCE losses
against the queues, and only then `enqueue`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from train.losses import clip_loss, info_nce


class KeyQueue(nn.Module):
    """A ring of the last `size` keys and the image each belongs to; empty slots have id -1."""

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


class TwoTowers(nn.Module):
    """The pair that is trained.

    Images come as pixels, or as cached outputs of the CNNs after `cached_blocks` of their blocks (a number for each CNN).
    Of the rest, the blocks up to `frozen_blocks` are frozen too: the same in online and momentum towers, so `prepare`
    runs them once for both.
    """

    def __init__(
        self,
        image: nn.Module,
        text: nn.Module,
        *,
        cached_blocks: Sequence[int] = (),
        frozen_blocks: Sequence[int] = (),
        text_chunks: int = 1,
    ) -> None:
        super().__init__()
        self.image, self.text = image, text
        self.cached_blocks, self.text_chunks = cached_blocks, text_chunks
        self.frozen_blocks = frozen_blocks or cached_blocks

    @torch.no_grad()
    def prepare(self, images: Tensor) -> Tensor:
        """What a step's images are before the first trained block."""
        if not self.frozen_blocks:
            return images
        if not self.cached_blocks:
            return self.image.early(images, self.frozen_blocks)
        return self.image.between(images, self.cached_blocks, self.frozen_blocks)

    def embed_images(self, prepared: Tensor) -> Tensor:
        """Output of `prepare` → unit vectors (N, dim)."""
        if self.frozen_blocks:
            return self.image.embed(self.image.maps(prepared, self.frozen_blocks))
        return self.image(prepared)

    def embed_texts(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Sorted by length and in `text_chunks` parts, each cut to its longest text: little is spent on padding."""
        if self.text_chunks == 1 or ids.ndim != 2:
            return self.text(ids, mask)
        lengths = mask.sum(1)
        order = lengths.argsort()
        parts = [
            self.text(ids[rows, : lengths[rows].max()], mask[rows, : lengths[rows].max()])
            for rows in order.chunk(self.text_chunks)
        ]
        return torch.cat(parts)[order.argsort()]


class Contrastive(nn.Module):
    """Online towers and their slow copies, θm ← m·θm + (1−m)·θ."""

    def __init__(self, online: TwoTowers, momentum: float) -> None:
        super().__init__()
        self.online = online
        self.slow = copy.deepcopy(online).requires_grad_(False)
        self.momentum = momentum

    def train(self, mode: bool = True) -> Contrastive:
        """Keys are made without dropout; a BatchNorm that is not frozen uses and tracks its own batches, as in MoCo."""
        super().train(mode)
        self.slow.eval()
        for slow, fast in zip(self.slow.modules(), self.online.modules(), strict=True):
            if isinstance(slow, nn.modules.batchnorm._BatchNorm):
                slow.train(fast.training)
        return self

    @torch.no_grad()
    def update_momentum(self) -> None:
        """θm ← m·θm + (1−m)·θ for every parameter; buffers (BatchNorm statistics) stay."""
        for slow, fast in zip(self.slow.parameters(), self.online.parameters(), strict=True):
            slow.lerp_(fast, 1 - self.momentum)


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
        in_batch_negatives: bool = False,
    ) -> None:
        super().__init__(online, momentum)
        self.image_queue = KeyQueue(queue_size, dim)
        self.text_queue = KeyQueue(queue_size, dim)
        self.temperature, self.in_batch_negatives = temperature, in_batch_negatives

    def forward(self, images: Tensor, token_ids: Tensor, token_mask: Tensor, ids: Tensor) -> Tensor:
        """L = L_i2t + L_t2i over N images with C captions each; advances momentum towers and queues.

        Args:
            images: (N, ...) as `TwoTowers.prepare` takes them.
            token_ids, token_mask: (N·C, T), the C captions of image 0 first.
            ids: (N,) image ids.
        """
        captions = len(token_ids) // len(ids)
        pair_ids = ids.repeat_interleave(captions)
        images = self.online.prepare(images)
        self.update_momentum()
        with torch.no_grad():
            image_keys = self.slow.embed_images(images)
            text_keys = self.slow.embed_texts(token_ids, token_mask)
        image_vectors = self.online.embed_images(images).repeat_interleave(captions, 0)
        text_vectors = self.online.embed_texts(token_ids, token_mask)
        inside = self.in_batch_negatives
        with torch.autocast(image_vectors.device.type, enabled=False):
            loss = info_nce(
                image_vectors, text_keys, pair_ids, self.text_queue.keys.clone(), self.text_queue.ids, self.temperature,
                in_batch_keys=text_keys if inside else None, in_batch_ids=pair_ids if inside else None,
            ) + info_nce(
                text_vectors, image_keys.repeat_interleave(captions, 0), pair_ids, self.image_queue.keys.clone(),
                self.image_queue.ids, self.temperature,
                in_batch_keys=image_keys if inside else None, in_batch_ids=ids if inside else None,
            )  # fmt: skip
        self.image_queue.enqueue(image_keys, ids)
        self.text_queue.enqueue(text_keys, pair_ids)
        return loss


class Clip(Contrastive):
    """The baseline beside MoCo: the same towers under CLIP's in-batch loss, with τ fixed or learned.

    The slow towers make no keys here; they are an average of the weights, evaluated as MoCo's are.
    """

    def __init__(self, online: TwoTowers, *, temperature: float = 0.07, learned_temperature: bool = False) -> None:
        super().__init__(online, 0.99)
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log(), requires_grad=learned_temperature)

    def forward(self, images: Tensor, token_ids: Tensor, token_mask: Tensor, ids: Tensor) -> Tensor:
        captions = len(token_ids) // len(ids)
        self.update_momentum()
        image_vectors = self.online.embed_images(self.online.prepare(images)).repeat_interleave(captions, 0)
        text_vectors = self.online.embed_texts(token_ids, token_mask)
        with torch.autocast(image_vectors.device.type, enabled=False):
            temperature = self.log_temperature.exp().clamp(min=0.01)
            return clip_loss(image_vectors, text_vectors, ids.repeat_interleave(captions), temperature)
