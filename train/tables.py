"""The tables of a recipe that name what is there already: models to start from, photos, shards."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
TowerName = Literal["image", "text"]
FOREIGN = ("hf:", "open_clip:")
Captions = Annotated[dict[str, Annotated[float, Field(ge=0)]], Field(min_length=1)]


class Table(BaseModel):
    """A table of a recipe; unknown keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Init(Table):
    """`[init]`: what the towers start from. Paths are relative to the recipe."""

    tokenizer: str | None = Field(
        None, description="folder with tokenizer.json or vocab.txt; by default the checkpoint's"
    )
    cnn: list[str] | None = Field(None, description="timm weights (.safetensors), a file for each backbone")
    text: str | None = Field(None, description="transformers folder for the text backbone")
    encoder: str | None = Field(None, description='"brivl-mini", FOLDER, "official:…", "hf:…" or "open_clip:…"')
    checkpoint: str | None = Field(None, description="the same, of BriVL's alone; some of its towers, if asked")
    towers: list[TowerName] = Field(["image", "text"], description="towers taken from `checkpoint`")
    differs: list[str] = Field([], description="keys of [model] that are not as in `checkpoint`, on purpose")

    @property
    def foreign(self) -> str | None:
        """A model of another library that is trained as it is; None: BriVL's towers are."""
        return self.encoder if self.encoder is not None and self.encoder.startswith(FOREIGN) else None

    @property
    def brivl(self) -> str | None:
        """The BriVL checkpoint to start from; None: there is none."""
        return self.checkpoint if self.encoder is None else None if self.foreign else self.encoder

    @model_validator(mode="after")
    def _has_words(self) -> Self:
        if self.encoder is not None and self.model_fields_set - {"encoder"}:
            other = sorted(self.model_fields_set - {"encoder"})[0]
            raise ValueError(f"encoder names a whole model, with its tokenizer: leave `{other}` out")
        if self.tokenizer is None and (self.brivl is None or "text" not in self.towers) and self.foreign is None:
            raise ValueError("tokenizer is missing: name a folder with tokenizer.json or vocab.txt")
        if self.differs and self.checkpoint is None:
            raise ValueError("differs is for a recipe with a `checkpoint`: leave it out")
        return self


class Data(Table):
    """`[[data]]`: a folder of photos with a caption file."""

    folder: str = Field(description="folder of the caption file, relative to the recipe")
    file: str = Field("captions.jsonl", description="the caption file in it: JSON lines")
    captions: Captions | None = Field(None, description="caption field → how often it is drawn; by default zh, en")
    encoding: str | None = Field(None, description="of the caption file; by default UTF-8")
    templates: dict[str, list[str]] = Field({}, description="field → sentences; {} is the field's text")
    hold_out_last: Count = Field(0, description="last rows, kept for validation")
    hold_out: Share = Field(0.0, description="share of the photos, chosen by name, kept for validation")
    skip_every: Count = Field(0, description="every n-th row is left out; 0: none")
    repeat: Positive = Field(1, description="draws of each photo in an epoch")
    missing_ok: bool = Field(False, description="go on without the folder where it is absent")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.captions is not None:
            if not any(self.captions.values()):
                raise ValueError("captions: every weight is 0, so that no caption is ever drawn")
            if unknown := [name for name in self.templates if name not in self.captions]:
                raise ValueError(f"templates: {unknown[0]} is no field of `captions`: add it there, or leave it out")
        for name, forms in self.templates.items():
            for form in forms:
                try:
                    said = form.format("caption")
                except (IndexError, KeyError, ValueError):
                    said = ""
                if "caption" not in said:
                    raise ValueError(
                        f"templates: {name}: {form!r} needs {{}} where the caption goes, and no other brace"
                    )
            if not forms:
                raise ValueError(f"templates: {name} has no sentence: leave it out")
        return self


class Shards(Table):
    """`[[shards]]`: pairs that `train.pairs.pack` packed."""

    folder: str = Field(description="folder of the shards, relative to the recipe")
    captions: Captions = Field(description="caption field → how often it is drawn")
    repeat: Positive = Field(1, description="draws of each pair in an epoch")
