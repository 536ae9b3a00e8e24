"""The recipe of a one-tower matcher."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from train.beside import BesideRecipe, BesideTraining
from train.recipe import Count, Positive, Rate, Share


class MatchTraining(BesideTraining):
    """`[train]` of a matcher's recipe. `batch` counts fresh pairs; the queue adds more for those that joint
    layers read."""

    joint_batch: Count = Field(0, description="fresh pairs of a step that joint layers read; 0: all of `batch`")
    joint_from: Count = Field(0, description="the first step in which joint layers learn; alignment learns from step 0")
    align_weight: Rate = Field(1.0, description="share of aligning words and regions, where matcher.align_size is set")
    recalled: Count = Field(1, description="pairs that each fresh text, and each fresh picture, recalls from the queue")
    negatives: Positive = Field(2, description="hard negatives of each text, and of each picture, inside the batch")
    queue_size: Positive = Field(16_384, description="pairs whose vectors are remembered")
    temperature: Annotated[float, Field(gt=0)] = Field(0.05, description="τ of drawing hard negatives by the cosine")
    rank_weight: Rate = Field(1.0, description="share of the loss that ranks the true pair over its negatives")
    match_weight: Rate = Field(1.0, description="share of image-text matching, true pair or not")
    word_weight: Rate = Field(0.5, description="share of masked words")
    masked: Share = Field(0.15, description="share of words that are masked for that")
    region_weight: Rate = Field(0.0, description="share of masked regions; beside masked words they take turns")
    masked_regions: Share = Field(0.15, description="share of regions that are masked for that")
    word_dropout: Share = Field(0.0, description="share of words that matching sees as [MASK]")
    frozen_text_layers: Count = Field(0, description="the embeddings and so many text layers are frozen; 0: nothing")
    measured_captions: Positive = Field(5, description="captions of a photo in a field that are measured, at most")
    top: Positive = Field(16, description="candidates that are re-ordered when it is measured")


class MatcherRecipe(BesideRecipe):
    """A recipe of `train.one_tower.fit`."""

    matcher: dict[str, Any] = Field({}, description="sizes: brivl_search/encoders/one_tower/config.py")
    train: MatchTraining
