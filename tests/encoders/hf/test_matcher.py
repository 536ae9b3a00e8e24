"""Matchers of transformers, tiny and random: the scores are those of transformers' own call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from brivl_search.encoders.base import Origin
from brivl_search.encoders.hf.matcher import KINDS, TransformersMatcher
from brivl_search.encoders.matching import load_matcher
from brivl_search.errors import EncoderError
from tests.support.stub import StubEncoder
from tests.support.tiny_hf import LETTERS, WORDS, make_hf

SIDE = 64
TEXTS = ["a red dog", "the blue circle on the grass", "a red dog"]
SMALL: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip


def _bert() -> Any:
    import transformers

    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{x}" for x in LETTERS), *WORDS]
    return transformers.BertTokenizer(vocab={word: n for n, word in enumerate(dict.fromkeys(vocab))})


def _blip(folder: Path) -> None:
    import transformers as tf

    tokenizer = _bert()
    text = {**SMALL, "vocab_size": len(tokenizer), "encoder_hidden_size": 32, "max_position_embeddings": 40}
    config = tf.BlipConfig(
        text_config=text, vision_config={**SMALL, "image_size": SIDE, "patch_size": 16}, image_text_hidden_size=16
    )
    _save(folder, tf.BlipForImageTextRetrieval(config))
    tf.BlipProcessor(tf.BlipImageProcessor(size={"height": SIDE, "width": SIDE}), tokenizer).save_pretrained(folder)


def _blip2(folder: Path) -> None:
    import transformers as tf

    tokenizer = _bert()
    qformer = {**SMALL, "vocab_size": len(tokenizer) + 1, "encoder_hidden_size": 32, "use_qformer_text_input": True}
    config = tf.Blip2Config(
        vision_config={**SMALL, "image_size": SIDE, "patch_size": 16}, qformer_config=qformer, num_query_tokens=4,
        text_config={"model_type": "opt", "vocab_size": 20, "hidden_size": 32, "num_hidden_layers": 1,
                     "ffn_dim": 32, "num_attention_heads": 2, "word_embed_proj_dim": 32},
        image_text_hidden_size=16, image_token_index=len(tokenizer),
    )  # fmt: skip
    _save(folder, tf.Blip2ForImageTextRetrieval(config))
    pictures = tf.BlipImageProcessor(size={"height": SIDE, "width": SIDE})
    tf.Blip2Processor(pictures, tokenizer, num_query_tokens=4).save_pretrained(folder)


def _vilt(folder: Path) -> None:
    import transformers as tf

    tokenizer = _bert()
    config = tf.ViltConfig(
        **SMALL, vocab_size=len(tokenizer), image_size=SIDE, patch_size=16, max_position_embeddings=40
    )
    _save(folder, tf.ViltForImageAndTextRetrieval(config))
    pictures = tf.ViltImageProcessor(size={"shortest_edge": SIDE})
    tf.ViltProcessor(pictures, tokenizer).save_pretrained(folder)


def _save(folder: Path, model: Any) -> None:
    with torch.no_grad():  # at their small start, all pairs have nearly the same score
        for value in model.parameters():
            if value.dim() > 1:
                value.normal_(0, 0.2)
    model.save_pretrained(folder)


MAKE = {
    "BlipForImageTextRetrieval": _blip,
    "Blip2ForImageTextRetrieval": _blip2,
    "ViltForImageAndTextRetrieval": _vilt,
}


@pytest.fixture(scope="module", params=list(KINDS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    made = tmp_path_factory.mktemp("matcher")
    MAKE[request.param](made)
    return made


def test_scores_are_those_of_transformers(folder: Path) -> None:
    import transformers

    matcher = load_matcher(f"hf:{folder}", StubEncoder(), device="cpu", precision="fp32")
    assert isinstance(matcher, TransformersMatcher)
    side = matcher.pixels.size
    pixels = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    shown = matcher.pictures(pixels, [Origin("", side, side)] * 3)
    found = matcher.scores(TEXTS, shown)
    processor = transformers.AutoProcessor.from_pretrained(folder)
    model = getattr(transformers, matcher.kind).from_pretrained(folder).eval()
    expected = []
    for text, picture in zip(TEXTS, pixels, strict=True):
        inputs = processor(images=Image.fromarray(picture), text=text, return_tensors="pt")
        call = {"Blip2ForImageTextRetrieval": {"use_image_text_matching_head": True}}.get(matcher.kind, {})
        with torch.inference_mode():
            out = model(**inputs, **call)
        logits = (
            out.itm_score if matcher.kind.startswith("Blip")and "itm_score" in out
            else out.logits_per_image if "logits_per_image" in out else out.logits
        )  # fmt: skip
        # of two logits the softmax of the second is the chance of a match: their difference is its log-odds
        expected.append(float(torch.logit(logits.softmax(1)[0, 1].double())) if logits.shape[1] == 2 else float(logits))
    assert np.allclose(found, expected, atol=2e-3, rtol=1e-3), (found, expected)
    assert np.ptp(found) > 1e-3
    swapped = matcher.scores([TEXTS[1]], [shown[0]])
    assert not np.allclose(swapped, found[:1])  # the text counts


def test_pictures_keep_their_proportions_where_the_model_wants_them(folder: Path) -> None:
    matcher = TransformersMatcher(f"hf:{folder}", device="cpu")
    (shown,) = matcher.pictures(
        np.zeros((1, matcher.pixels.size, matcher.pixels.size, 3), np.uint8), [Origin("", 200, 100)]
    )
    picture = matcher._seen.picture(shown)
    squashes = matcher.kind.startswith("Blip")
    assert picture.size == ((SIDE, SIDE) if squashes else (2 * SIDE, SIDE))


def test_what_is_no_matcher_is_refused(tmp_path: Path) -> None:
    clip = make_hf(tmp_path / "clip", "clip")
    with pytest.raises(EncoderError, match=r"is no matcher \(CLIPModel\): known are Blip"):
        TransformersMatcher(f"hf:{clip}")


def test_damage_is_told(tmp_path: Path) -> None:
    _blip(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x")
    matcher = TransformersMatcher(f"hf:{tmp_path}", device="cpu")
    with pytest.raises(EncoderError, match="cannot be loaded"):
        matcher.scores(["x"], matcher.pictures(np.zeros((1, SIDE, SIDE, 3), np.uint8), [Origin("", 1, 1)]))
