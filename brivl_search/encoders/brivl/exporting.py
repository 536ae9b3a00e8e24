"""The towers of a BriVL checkpoint as modules that can be exported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from brivl_search.encoders.hf.exporting import made_pixels, made_texts
from brivl_search.encoders.runtimes.graph import Exportable
from brivl_search.errors import EncoderError

if TYPE_CHECKING:
    from brivl_search.encoders.runtimes.choice import Side


def exportable(encoder: Any, side: Side) -> Exportable:
    """One side of the encoder.

    Raises:
        EncoderError: its regions come from elsewhere.
    """
    if side == "image":
        if encoder.boxes is not None:
            raise EncoderError(f"{encoder.name} cannot be exported: its regions are not those of a fixed grid")
        return Exportable(encoder.image_tower, ["pixels"], made_pixels(encoder.pixels))

    def example(n: int) -> tuple[Tensor, ...]:
        ids, mask = encoder.tokenizer.batch(encoder.tokenizer.ids(made_texts(n)))
        return torch.from_numpy(ids), torch.from_numpy(mask)

    return Exportable(encoder.text_tower, ["input_ids", "mask"], example, {"input_ids": [1], "mask": [1]})
