"""The recipe of the third round: heads that learn from captions, labelled photos and the CNNs' own classifiers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from train.recipe import Common, Count, Data, Positive, Rate, Share, Steps, Table


class Captioned(Data):
    """`[[data]]` of a heads recipe: photos with captions, and how many views of each are cached."""

    views: Positive = Field(1, description="cached views of each photo; the first is the plain picture")


class Labelled(Table):
    """`[[labelled]]`: photos with the names of what they show, in two languages."""

    folder: str = Field(description="folder of the label file, relative to the recipe")
    file: str = Field("captions.jsonl", description="the label file in it: JSON lines")
    zh: str = Field("zh_label", description="field of the Chinese name; several are joined by 、")
    en: str = Field("en_label", description="field of the English name; several are joined by a comma")
    kind: str = Field(description="which of the `kinds` its names are: their sentences")
    views: Positive = 1
    repeat: Positive = Field(1, description="draws of each photo in an epoch")
    hold_photos: Share = Field(0.0, description="share of each class of 3 photos or more, kept for validation")
    hold_classes: Share = Field(0.0, description="share of the classes, kept for validation with all their photos")


class HeadTraining(Steps):
    """`[train]` of a heads recipe: photos with captions and photos with labels in every step."""

    labelled_batch: Positive = Field(description="labelled photos in an update, beside `batch` captioned ones")
    captions_per_image: Positive = 3
    negatives: Count = Field(4096, description="captions of other photos that each step draws")
    temperature: Annotated[float, Field(gt=0)] = Field(0.05, description="τ of captions")
    class_temperature: Annotated[float, Field(gt=0)] = Field(0.05, description="τ of class names")
    caption_weight: Rate = Field(1.0, description="share of the captions' loss")
    label_weight: Rate = Field(1.0, description="share of the labels' loss")
    teacher_weight: Rate = Field(1.0, description="share of the classifiers' loss")
    told_weight: Rate = Field(1.0, description="of that, the share on captioned photos")
    keep_weight: Rate = Field(
        0.0, description="share of 1 − cosine between what is said of captioned photos and was said"
    )
    keep_named: Rate = Field(0.0, description="of that, the share of labelled photos")
    text_weight: Rate = Field(0.0, description="share of the names' own loss: a name and its translation")
    text_lr_factor: Rate = Field(0.0, description="the text tower's share of `lr`; 0: it does not learn")
    text_layers: Count = Field(1, description="last layers of the text backbone that learn with the text head")
    average: Annotated[float, Field(ge=0, lt=1)] = Field(0.995, description="of the weights that are kept")
    clip_grad: Annotated[float, Field(gt=0)] = 1.0
    crop_scale: Annotated[float, Field(gt=0, le=1)] = 0.4
    jitter: Share = 0.3
    plain_view: Share = 0.25
    flip: Share = 0.5


class HeadsRecipe(Common):
    """A recipe of `train.mini.maps` and `train.mini.heads`."""

    data: list[Captioned] = Field([])  # type: ignore[assignment]
    labelled: list[Labelled] = Field([])
    kinds: dict[str, dict[Literal["zh", "en"], list[str]]] = Field(description="kind → sentences about a name")
    classifiers: list[str] = Field(description="each CNN's ImageNet weights; empty: not read")
    names: str = Field(description="the classifiers' classes: JSON lines with zh and en, relative to the recipe")
    texts: str | None = Field(None, description="checkpoint whose text tower is taken; by default `init.checkpoint`'s")
    go_on: str | None = Field(None, description="checkpoint of an earlier run whose weights are taken")
    everything: bool = Field(False, description="held-out pictures are trained on too; for the last run alone")
    train: HeadTraining
