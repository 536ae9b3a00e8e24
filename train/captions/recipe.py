"""The recipe of a captioner."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from train.beside import BesideRecipe, BesideTraining
from train.recipe import Positive, Rate, Share


class CaptionTraining(BesideTraining):
    """`[train]` of a captioner's recipe. `batch` counts photos."""

    captions_per_image: Positive = Field(1, description="captions drawn for each photo of a batch")
    starts: dict[str, str] = Field({}, description="caption field → first token; by default its name up to the first _")
    least: Positive = Field(1, description="pieces that occur more seldom in the training captions are never written")
    text_layers: bool = Field(True, description="layers begin as the text tower's first ones, where sizes allow it")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="share spread over all words")
    vector_dropout: Share = Field(0.0, description="share of pictures whose vector is hidden")
    vector_noise: Rate = Field(0.0, description="length of the noise that is added to a picture's vector, of length 1")
    measure_beams: Positive = Field(1, description="beams when it is measured in training; 1: greedy")


class CaptionRecipe(BesideRecipe):
    """A recipe of `train.captions.fit`."""

    captioner: dict[str, Any] = Field({}, description="sizes: brivl_search/encoders/captions/config.py")
    train: CaptionTraining
