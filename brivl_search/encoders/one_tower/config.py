"""The architecture of a one-tower matcher, as `config.json` of its folder describes it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from brivl_search.errors import EncoderError

KIND = "one-tower"  # "kind" of a matcher's config.json; a checkpoint of two towers has none
CONFIG_VERSION = 1


@dataclass(frozen=True)
class MatcherConfig:
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
    regions: str = ""
    cosine_weight: float = 0.0
    version: int = CONFIG_VERSION
    training: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": KIND, **dataclasses.asdict(self)}

    def sizes(self) -> dict[str, Any]:
        """What decides a score apart from weights and tokenizer. The fingerprint hashes it."""
        left_out = ("name", "version", "training", "dropout", "region_dropout", "feature_dropout")
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in left_out}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> MatcherConfig:
        """Reads what `to_dict` wrote.

        Raises:
            EncoderError: it is not of a matcher, has an unknown field or a value of another type, or is of a newer
                version.
        """
        if raw.get("kind") != KIND:
            raise EncoderError(f'config.json is not of a one-tower matcher: it has no "kind": "{KIND}"')
        if raw.get("version", CONFIG_VERSION) != CONFIG_VERSION:
            raise EncoderError(f"config.json is of version {raw['version']}: this brivl-search reads {CONFIG_VERSION}")
        values = {key: value for key, value in raw.items() if key != "kind"}
        known = {f.name: f for f in dataclasses.fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise EncoderError(f"config.json: unknown field {name!r}")
            default = getattr(cls, name, {})
            wanted = (int, float) if isinstance(default, float) else type(default)
            if not isinstance(value, wanted) or (isinstance(value, bool) and not isinstance(default, bool)):
                raise EncoderError(f"config.json: {name} = {value!r} is no {type(default).__name__}")
        found = cls(**values)
        least = {name: getattr(found, name) for name in _POSITIVE}
        if low := [name for name, value in least.items() if value < 1]:
            raise EncoderError(f"config.json: {low[0]} = {least[low[0]]}: give 1 or more")
        if low := [name for name in _COUNTS if getattr(found, name) < 0]:
            raise EncoderError(f"config.json: {low[0]} = {getattr(found, low[0])}: give 0 or more")
        if found.shared_layers > found.text_layers:
            raise EncoderError(
                f"config.json: shared_layers = {found.shared_layers}, and text_layers = {found.text_layers}: the first "
                "of the text layers are shared, so there are not more of them"
            )
        if found.bank_texts and not found.align_size:
            raise EncoderError("config.json: a bank needs align_size: it is compared by words and regions")
        if found.text_layers < 0 or found.width % found.heads:
            raise EncoderError(
                f"config.json: text_layers = {found.text_layers} must not be negative, and heads = {found.heads} must "
                f"divide width = {found.width}"
            )
        return found


_COUNTS = ("align_size", "bank_texts", "bank_words", "bank_pictures", "bank_regions", "shared_layers")
_POSITIVE = ("vocab_size", "region_size", "width", "heads", "feedforward", "joint_layers", "max_length")
