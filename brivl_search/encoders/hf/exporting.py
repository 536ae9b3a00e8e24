"""The towers of a model of transformers as modules that can be exported, see `runtimes.graph`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from brivl_search.encoders.hf.towers import features
from brivl_search.encoders.runtimes.graph import Exportable

if TYPE_CHECKING:
    from brivl_search.corpus.pixels import PixelSpec
    from brivl_search.encoders.hf.family import ModelFacts
    from brivl_search.encoders.runtimes.choice import Side


class NormalPixels(nn.Module):
    """uint8 RGB (n, S, S, 3) → normalised float32 (n, 3, S, S)."""

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        normal = (pixels.float() - self.get_buffer("mean")) / self.get_buffer("std")
        return normal.permute(0, 3, 1, 2)


class _Images(nn.Module):
    def __init__(self, tower: Any, normal: NormalPixels) -> None:
        super().__init__()
        self.tower, self.normal = tower, normal

    def forward(self, pixels: Tensor) -> Tensor:
        return features(self.tower.get_image_features(pixel_values=self.normal(pixels))).float()


class _Texts(nn.Module):
    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        masks = {} if attention_mask is None else {"attention_mask": attention_mask}
        return features(self.tower.get_text_features(input_ids=input_ids, **masks)).float()


class _Patches(nn.Module):
    """Pictures as patches (`corpus.patches`), uint8 (n, S, S, 3) → vectors.

    transformers resizes the table of positions for each picture by tensors alone; a version of it that went through
    the pictures one by one would give other vectors for other batches, which the comparison after an export finds.
    """

    def __init__(self, tower: Any, facts: ModelFacts) -> None:
        super().__init__()
        self.tower, self.patch, self.most = tower, facts.pixels.patch, facts.pixels.max_patches
        self.register_buffer("mean", torch.tensor(facts.mean), persistent=False)
        self.register_buffer("std", torch.tensor(facts.std), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        flat = pixels.flatten(1)
        low, high = flat[:, -4::2].long(), flat[:, -3::2].long()
        shapes = (low + 256 * high).clamp(min=1)  # rows and columns, two bytes each
        mask = torch.arange(self.most)[None] < shapes.prod(1, keepdim=True)
        tiles = flat[:, : self.most * self.patch**2 * 3].reshape(-1, self.most, self.patch**2, 3).float()
        normal = ((tiles - self.get_buffer("mean")) / self.get_buffer("std")).flatten(2) * mask[..., None]
        found = self.tower.get_image_features(
            pixel_values=normal, pixel_attention_mask=mask.int(), spatial_shapes=shapes
        )
        return features(found).float()


def exportable(encoder: Any, side: Side) -> Exportable:
    """One side of the encoder."""
    facts = encoder.facts
    if side == "image":
        if facts.pixels.resize == "patches":
            return Exportable(_Patches(encoder.image_tower, facts), ["pixels"], made_pixels(facts.pixels))
        module = _Images(encoder.image_tower, NormalPixels(facts.mean, facts.std))
        return Exportable(module, ["pixels"], made_pixels(facts.pixels))
    names = ["input_ids", "attention_mask"] if facts.family.pad_to_longest else ["input_ids"]

    def example(n: int) -> tuple[Tensor, ...]:
        read = encoder.tokenized(made_texts(n))
        return tuple(torch.from_numpy(read[name]) for name in names)

    lengths = {name: [1] for name in names} if facts.family.pad_to_longest or facts.long_length else {}
    return Exportable(_Texts(encoder.text_tower), names, example, lengths)


def made_pixels(spec: PixelSpec) -> Any:
    """A function from n to n made pictures, uint8 (n, S, S, 3)."""
    from brivl_search.encoders.runtimes.made import squares

    return lambda n: (torch.from_numpy(squares(n, spec)),)


def made_texts(n: int) -> list[str]:
    """n texts in several languages and lengths."""
    from brivl_search.encoders.runtimes.made import texts

    return texts(n)
