"""Captioners of transformers, tiny and random: the captions are those of transformers' own `generate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from brivl_search.encoders.base import Origin
from brivl_search.encoders.captioners import load_captioner
from brivl_search.encoders.hf.captioner import BEAMS, KINDS, LONGEST, TransformersCaptioner
from brivl_search.errors import EncoderError, UsageError
from tests.encoders.hf.test_matcher import SIDE, SMALL, _bert, _blip, _save

PIXELS = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
ORIGINS = [Origin("", SIDE, SIDE)] * 2
SQUARE = {"height": SIDE, "width": SIDE}


def _blip_writer(folder: Path) -> None:
    import transformers as tf

    tokenizer = _bert()
    ids = {"bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    text = {**SMALL, **ids, "vocab_size": len(tokenizer), "encoder_hidden_size": 32, "max_position_embeddings": 60}
    config = tf.BlipConfig(text_config=text, vision_config={**SMALL, "image_size": SIDE, "patch_size": 16})
    _save(folder, tf.BlipForConditionalGeneration(config))
    tf.BlipProcessor(tf.BlipImageProcessor(size=SQUARE), tokenizer).save_pretrained(folder)


def _git(folder: Path) -> None:
    import transformers as tf

    tokenizer = _bert()
    ids = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    vision = {**SMALL, "image_size": SIDE, "patch_size": 16}
    config = tf.GitConfig(**SMALL, **ids, vision_config=vision, vocab_size=len(tokenizer), max_position_embeddings=80)
    _save(folder, tf.GitForCausalLM(config))
    pictures = tf.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SQUARE)
    tf.GitProcessor(pictures, tokenizer).save_pretrained(folder)


def _encoder_decoder(folder: Path) -> None:
    import transformers as tf

    tokenizer = _bert()
    decoder = tf.BertConfig(
        **SMALL, vocab_size=len(tokenizer), is_decoder=True, add_cross_attention=True, max_position_embeddings=60
    )
    config = tf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        tf.ViTConfig(**SMALL, image_size=SIDE, patch_size=16), decoder
    )
    ids = {"decoder_start_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    for name, value in ids.items():
        setattr(config, name, value)
    model = tf.VisionEncoderDecoderModel(config)
    for name, value in ids.items():
        setattr(model.generation_config, name, value)
    _save(folder, model)
    tf.ViTImageProcessor(size=SQUARE).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize("make", [_blip_writer, _git, _encoder_decoder])
def test_captions_are_transformers_own(make: Callable[[Path], None], tmp_path: Path) -> None:
    import transformers as tf

    torch.manual_seed(0)
    make(tmp_path)
    captioner = load_captioner(f"hf:{tmp_path}", None, device="cpu", precision="fp32")
    assert isinstance(captioner, TransformersCaptioner) and captioner.kind in KINDS
    assert captioner.fingerprint.startswith("captioner-") and captioner.languages == ("en",)
    # a photo that is wider than high, decoded as the program does
    side = captioner.pixels.size
    squares = np.stack([np.asarray(Image.fromarray(one).resize((side, side))) for one in PIXELS])
    found = captioner.write(squares, [Origin("", 2 * SIDE, SIDE), ORIGINS[1]], ["en"], 3)

    model = getattr(tf, captioner.kind).from_pretrained(tmp_path).eval()
    processor, tokenizer = tf.AutoImageProcessor.from_pretrained(tmp_path), tf.AutoTokenizer.from_pretrained(tmp_path)
    wide = Image.fromarray(squares[0])
    if not captioner._seen.squashes:
        wide = wide.resize((2 * SIDE, SIDE), Image.Resampling.BICUBIC)
    for picture, drafts in zip([wide, Image.fromarray(squares[1])], found, strict=True):
        inputs = processor(images=[picture], return_tensors="pt")
        with torch.no_grad():
            out = model.generate(
                **inputs, num_beams=BEAMS, num_return_sequences=3, do_sample=False, max_new_tokens=LONGEST,
                return_dict_in_generate=True, output_scores=True,
            )  # fmt: skip
        texts = [" ".join(one.split()) for one in tokenizer.batch_decode(out.sequences, skip_special_tokens=True)]
        own = dict(zip(reversed(texts), reversed(out.sequences_scores.tolist()), strict=True))
        own.pop("", None)
        assert {one.text: pytest.approx(one.score, abs=1e-4) for one in drafts.captions["en"]} == own
        scores = [one.score for one in drafts.captions["en"]]
        assert scores == sorted(scores, reverse=True) and scores
    with pytest.raises(UsageError, match="does not write in 'zh'"):
        captioner.write(PIXELS, ORIGINS, ["zh"], 1)


def test_what_is_no_captioner_is_named(tmp_path: Path) -> None:
    _blip(tmp_path / "matcher")
    with pytest.raises(EncoderError, match=r"is no captioner \(BlipForImageTextRetrieval\)"):
        load_captioner(f"hf:{tmp_path / 'matcher'}", None)
    with pytest.raises(UsageError, match="no captioner 'nowhere'"):
        load_captioner("nowhere", None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(EncoderError, match="holds no captioner"):
        load_captioner(str(tmp_path / "empty"), None)
    _blip_writer(tmp_path / "cut")
    weights: Any = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(EncoderError, match="cannot be loaded"):
        load_captioner(f"hf:{tmp_path / 'cut'}", None).write(PIXELS, ORIGINS, ["en"], 1)
