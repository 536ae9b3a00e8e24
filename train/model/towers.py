"""The image and the text tower as one module: what is frozen, what is cached, and how a batch goes through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from brivl_search.encoders.brivl.text_tower import TextTower


class SentenceCache:
    """Remembers what a text tower that is frozen, wholly or up to its MLP, says of a text; online and momentum towers
    share it."""

    def __init__(self, *, whole: bool = False) -> None:
        """`whole`: the MLP is frozen too, and its unit vectors are kept."""
        self.whole = whole
        self.known: dict[tuple[int, ...], Tensor] = {}

    def __deepcopy__(self, _: object) -> SentenceCache:
        return self

    @torch.no_grad()
    def __call__(self, text: TextTower, ids: Tensor, mask: Tensor) -> Tensor:
        """(N, width), the output of `TextTower.pool`, or unit vectors (N, dim) of a wholly frozen tower."""
        names = [tuple(row[:length]) for row, length in zip(ids.tolist(), mask.sum(1).tolist(), strict=True)]
        run = text if self.whole else text.pool
        unknown = {name: i for i, name in enumerate(names) if name not in self.known}
        new = sorted(unknown.values(), key=lambda i: len(names[i]))
        for start in range(0, len(new), 128):  # of like length: little is spent on padding
            rows = new[start : start + 128]
            longest = len(names[rows[-1]])
            for i, vector in zip(rows, run(ids[rows, :longest], mask[rows, :longest]), strict=True):
                self.known[names[i]] = vector
        return torch.stack([self.known[name] for name in names])


class TwoTowers(nn.Module):
    """The pair that is trained.

    Images come as pixels, or as cached outputs of the CNNs after `cached_blocks` of their blocks (a number per CNN).
    Of the rest, the blocks up to `frozen_blocks` are frozen too: the same in online and momentum towers, so `prepare`
    runs them once for both.
    """

    image: Any
    text: Any

    def __init__(
        self,
        image: nn.Module,
        text: nn.Module,
        *,
        cached_blocks: Sequence[int] = (),
        frozen_blocks: Sequence[int] = (),
        text_chunks: int = 1,
        sentences: SentenceCache | None = None,
        frozen: Sequence[str] = (),
    ) -> None:
        """Both map to unit vectors: `image` uint8 pixels (N, S, S, 3), `text` token ids (N, T) and a mask (N, T).

        Args:
            image, text: BriVL's, or any others; what is cut into blocks has to be an `ImageTower`.
            cached_blocks, frozen_blocks: of each CNN.
            text_chunks: parts that a batch of texts is cut into, by length.
            sentences: what a frozen text tower says is kept there.
            frozen: towers ("image", "text") that do not learn at all; they make their vectors without dropout.
        """
        super().__init__()
        self.sentences, self.frozen = sentences, frozen
        self.image, self.text = image, text
        self.cached_blocks, self.text_chunks = cached_blocks, text_chunks
        self.frozen_blocks = frozen_blocks or cached_blocks

    def train(self, mode: bool = True) -> TwoTowers:
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self

    @torch.no_grad()
    def prepare(self, images: Tensor) -> Tensor:
        """What a step's images are before the first trained block."""
        if not self.frozen_blocks:
            return images
        if not self.cached_blocks:
            before: Tensor = self.image.early(images, self.frozen_blocks)
            return before
        between: Tensor = self.image.between(images, self.cached_blocks, self.frozen_blocks)
        return between

    def embed_images(self, prepared: Tensor) -> Tensor:
        """Output of `prepare` → unit vectors (N, dim)."""
        frozen = self.frozen_blocks
        vectors: Tensor = self.image.embed(self.image.maps(prepared, frozen)) if frozen else self.image(prepared)
        return vectors

    def embed_members(self, prepared: Tensor) -> Tensor:
        """As `embed_images`, what each head of the image tower says: (members, N, dim)."""
        if not getattr(self.image, "members", None):
            return self.embed_images(prepared)[None]
        vectors: Tensor = self.image.embed_members(self._maps(prepared))
        return vectors

    def _maps(self, prepared: Tensor) -> list[Tensor]:
        frozen = self.frozen_blocks
        maps: list[Tensor] = (
            self.image.maps(prepared, frozen) if frozen else [cnn(prepared) for cnn in self.image.backbones]
        )
        return maps

    def embed_members_and_regions(self, prepared: Tensor) -> tuple[Tensor, Tensor]:
        """As `embed_members`, and the features of all regions (N, R, Σ channels), nothing of them dropped."""
        maps = self._maps(prepared)
        return self.image.embed_members(maps), self.image.all_regions(maps)

    def embed_texts(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors (N, dim).

        Sorted by length and in `text_chunks` parts, each cut to its longest text: little is spent on padding."""
        if self.sentences is not None:
            known = self.sentences(self.text, ids, mask)
            finished: Tensor = known if self.sentences.whole else self.text.head.finish(known)
            return finished
        if self.text_chunks == 1 or ids.ndim != 2:
            vectors: Tensor = self.text(ids, mask)
            return vectors
        lengths = mask.sum(1)
        order = lengths.argsort()
        parts = [
            self.text(ids[rows, : lengths[rows].max()], mask[rows, : lengths[rows].max()])
            for rows in order.chunk(self.text_chunks)
        ]
        return torch.cat(parts)[order.argsort()]
