"""The architecture of a one-tower matcher, as `config.json` of its folder describes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from brivl_search.encoders.model_folder import FolderConfig
from brivl_search.errors import EncoderError


@dataclass(frozen=True)
class MatcherConfig(FolderConfig):
    """Sizes of a matcher. The defaults are UNITER-base as published.

    Attributes:
        vocab_size: words of the tokenizer.
        region_size: numbers of a region: the channels of the image tower's CNNs; 2048 of UNITER's detector.
        width, heads, feedforward: of every layer.
        text_layers: layers that see the text alone; they run once for a text, not once for a pair. UNITER has none.
        joint_layers: layers in which the text sees the picture.
        one_way: in joint layers, text tokens read the regions, and the regions stay as they are. So a picture's keys
            and values are computed once, and a pair costs the text's tokens alone. False, as in UNITER: text and
            regions are one sequence, in which all see all.
        align_size: numbers of the vectors by which words look for their regions (`alignment.Alignment`), which is part
            of the score; 0: there is none, as in UNITER.
        bank_texts, bank_words, bank_pictures, bank_regions: of the bank (`bank.Bank`): captions and their words,
            pictures and their regions; 0: there is none.
        hub_weight: how much of what a text, or a picture, scores with the bank is taken from its pairs.
        shared_layers: the words and so many text layers are the text tower's, and are read from there; 0: none.
        texts: fingerprint of that text tower's words and layers (`BriVLEncoder.words_fingerprint`).
        max_length: tokens of a text, [CLS] and [SEP] included.
        dropout: in training.
        region_dropout: share of each picture's regions left out in training.
        feature_dropout: share of a region's numbers dropped from a picture in training.
        masked_regions: it has UNITER's head for masked regions, which training alone uses (`masked.MaskedRegions`); the
            regions see the text then, so not with `one_way`.
        regions: fingerprint of the image tower whose regions it was trained on (`BriVLEncoder.regions_fingerprint`).
        cosine_weight: the score of a pair is its logit + this · the cosine of the two towers.
        training: how it was trained; for people, no code reads it.
    """

    name: str = "uniter-base"
    vocab_size: int = 28_996
    region_size: int = 2048
    width: int = 768
    heads: int = 12
    feedforward: int = 3072
    text_layers: int = 0
    joint_layers: int = 12
    one_way: bool = False
    align_size: int = 0
    bank_texts: int = 0
    bank_words: int = 0
    bank_pictures: int = 0
    bank_regions: int = 0
    hub_weight: float = 0.0
    shared_layers: int = 0
    texts: str = ""
    max_length: int = 60
    dropout: float = 0.1
    region_dropout: float = 0.0
    feature_dropout: float = 0.0
    masked_regions: bool = False
    regions: str = ""
    cosine_weight: float = 0.0
    training: dict[str, Any] = field(default_factory=dict)

    KIND: ClassVar[str] = "one-tower"  # a checkpoint of two towers has none
    WHAT: ClassVar[str] = "matcher"
    BESIDE: ClassVar[tuple[str, ...]] = (
        "name", "training", "dropout", "region_dropout", "feature_dropout", "masked_regions",
    )  # fmt: skip

    def check(self) -> None:
        self.at_least_one("vocab_size", "region_size", "width", "heads", "feedforward", "joint_layers", "max_length")
        if low := [name for name in _COUNTS if getattr(self, name) < 0]:
            raise EncoderError(f"config.json: {low[0]} = {getattr(self, low[0])}: give 0 or more")
        if self.shared_layers > self.text_layers:
            raise EncoderError(
                f"config.json: shared_layers = {self.shared_layers}: they are the first of the text layers, and there "
                f"are {self.text_layers}"
            )
        if self.bank_texts and not (self.align_size and self.bank_words and self.bank_pictures and self.bank_regions):
            raise EncoderError(
                "config.json: a bank needs align_size, bank_words, bank_pictures and bank_regions: words and regions "
                "are compared"
            )
        if self.masked_regions and self.one_way:
            raise EncoderError(
                "config.json: masked_regions asks what the text tells of a region, and with one_way regions do not see "
                "the text: set one of them to false"
            )
        if self.text_layers < 0 or self.width % self.heads:
            raise EncoderError(
                f"config.json: text_layers = {self.text_layers} must not be negative, and heads = {self.heads} must "
                f"divide width = {self.width}"
            )


_COUNTS = ("align_size", "bank_texts", "bank_words", "bank_pictures", "bank_regions", "shared_layers")
