"""What recipes of models beside frozen towers share: a one-tower matcher, a captioner."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from train.recipe import Common, Count, Data, Positive, Rate, Share, Steps


class ChooseData(Data):
    """`[[data]]` of such a recipe."""

    choose: Count = Field(0, description="of the held-out photos, the first so many choose what is kept")


class BesideTraining(Steps):
    """`[train]` of such a recipe."""

    known_lr_factor: Rate = Field(1.0, description="share of `lr` for layers that come from the text tower")
    average: Annotated[float, Field(ge=0, lt=1)] = Field(0.99, description="of the weights that are kept")
    clip_grad: Annotated[float, Field(gt=0)] = 1.0
    views: Positive = Field(1, description="cached views of each training photo; the first is the plain picture")
    plain_view: Share = Field(0.35, description="share of draws that take the plain picture")
    crop_scale: Annotated[float, Field(gt=0, le=1)] = Field(0.4, description="smallest share a crop shows")
    jitter: Share = Field(0.3, description="strength of the colour jitter")
    measured: list[str] = Field([], description="caption fields that are measured; by default all")


class BesideRecipe(Common):
    """`init.checkpoint` names the two towers; both stay as they are."""

    data: list[ChooseData] = Field()  # type: ignore[assignment]
    train: BesideTraining
