"""The architecture of a captioner, as `config.json` of its folder describes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from brivl_search.encoders.model_folder import FolderConfig
from brivl_search.errors import EncoderError


@dataclass(frozen=True)
class CaptionConfig(FolderConfig):
    """Sizes of a captioner.

    Attributes:
        words: pieces of the tokenizer that it can write, [UNK] (never written) and the end among them.
        tokenizer_size: pieces of the whole tokenizer.
        starts: names of the first token, a way of writing each: "zh", "en", and others that only teach ("zh_mt").
        region_size: numbers of a region: the channels of the image tower's CNNs.
        vector_size: of a picture's unit vector.
        width, heads, feedforward, layers: of the decoder.
        max_length: tokens of a caption, the start included, the end not.
        dropout: in training.
        region_dropout: share of each picture's regions left out in training.
        feature_dropout: share of a region's numbers dropped from a picture in training.
        regions: fingerprint of the image tower whose regions it reads (`BriVLEncoder.regions_fingerprint`).
        vectors: fingerprint of the image tower whose vectors it reads (`BriVLEncoder.vectors_fingerprint`).
        beams: captions that are followed at once, unless more are asked for.
        length_power: a caption's score is the sum of its log-probabilities / tokens ** this.
        no_repeat: no sequence of so many tokens stands twice in a caption; 0: it may.
        cosine_weight: captions are ordered by score + this · the cosine of the two towers.
        training: how it was trained; for people, no code reads it.
    """

    name: str = "captioner"
    words: int = 6000
    tokenizer_size: int = 23_223
    starts: list[str] = field(default_factory=lambda: ["zh", "en"])
    region_size: int = 2048
    vector_size: int = 2048
    width: int = 384
    heads: int = 12
    feedforward: int = 1536
    layers: int = 3
    max_length: int = 32
    dropout: float = 0.1
    region_dropout: float = 0.0
    feature_dropout: float = 0.0
    regions: str = ""
    vectors: str = ""
    beams: int = 4
    length_power: float = 0.7
    no_repeat: int = 3
    cosine_weight: float = 0.0
    training: dict[str, Any] = field(default_factory=dict)

    KIND: ClassVar[str] = "captioner"
    WHAT: ClassVar[str] = "captioner"
    BESIDE: ClassVar[tuple[str, ...]] = ("name", "training", "dropout", "region_dropout", "feature_dropout")

    def check(self) -> None:
        self.at_least_one(
            "words", "tokenizer_size", "region_size", "vector_size", "width", "heads", "feedforward", "layers",
            "max_length", "beams",
        )  # fmt: skip
        if self.width % self.heads:
            raise EncoderError(f"config.json: heads = {self.heads} must divide width = {self.width}")
        if not self.starts or not all(isinstance(name, str) and name for name in self.starts):
            raise EncoderError(f"config.json: starts = {self.starts}: give the name of a language, or several")

    @property
    def languages(self) -> tuple[str, ...]:
        """Starts that are languages people ask for."""
        return tuple(name for name in self.starts if name in ("zh", "en"))
