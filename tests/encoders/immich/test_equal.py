"""Folders of immich's format against open_clip's own model and immich's own preprocessing, on models made here."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from brivl_search.corpus.images import load_pixels
from brivl_search.encoders.open_clip.language import language
from tests.support.tiny_hf import TEXTS, edit_json, photo, photos
from tests.support.tiny_immich import (
    KINDS,
    exported_fixture,  # noqa: F401 - the fixture `exported`
    load,
    make_immich,
)
from tests.support.tiny_open_clip import for_open_clip

open_clip = pytest.importorskip("open_clip")
pytest.importorskip("onnxruntime")
Exported = dict[str, tuple[Path, Path]]


def immichs_picture(data: bytes, size: int, resize: str, filter_name: str) -> np.ndarray:
    """What `OpenClipVisualEncoder.transform` of immich does before it normalises: uint8 (size, size, 3)."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    resampling = Image.Resampling[filter_name.upper()]
    if resize == "squash":
        return np.asarray(image.resize((size, size), resampling))
    width, height = image.size
    if width < height:
        image = image.resize((size, int((height / width) * size)), resampling)
    else:
        image = image.resize((int((width / height) * size), size), resampling)
    left, upper = int(image.width / 2 - size / 2), int(image.height / 2 - size / 2)
    return np.asarray(image.crop((left, upper, left + size, upper + size)))


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_open_clips_own(exported: Exported, kind: str) -> None:
    folder, original = exported[kind]
    own = for_open_clip(original)
    model = open_clip.create_model(f"local-dir:{own}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{own}")
    encoder = load(folder)
    about, spec = encoder.about, encoder.pixels
    resize = "squash" if spec.resize == "squash" else "shortest"
    pictures = [immichs_picture(data, spec.size, resize, spec.interpolation) for data in photos()]
    normal = (torch.tensor(np.stack(pictures)).float() - torch.tensor(about.mean)) / torch.tensor(about.std)
    with torch.inference_mode():
        images = model.encode_image(normal.permute(0, 3, 1, 2), normalize=True).numpy()
        texts = []
        for text in TEXTS:
            if kind == "nllb_siglip":
                tokenizer.tokenizer.src_lang = language(text)
            texts.append(model.encode_text(tokenizer([text]), normalize=True)[0].numpy())
    for found, wanted, least in (
        (encoder.encode_texts(TEXTS), np.stack(texts), 1 - 1e-5),
        (encoder.encode_images(np.stack(pictures)), images, 1 - 1e-5),
        (encoder.encode_images(photos()), images, 0.999),  # decoded here, from JPEGs scaled while they are read
    ):
        assert found.dtype == np.float32 and found.shape == wanted.shape == (len(wanted), encoder.dim)
        assert ((found * wanted).sum(1) > least).all(), (found * wanted).sum(1)
        others = (wanted @ wanted.T)[~np.eye(len(wanted), dtype=bool)]
        assert others.max() < least  # the vectors differ from each other


@pytest.mark.parametrize("resize", ["shortest", "squash"])
@pytest.mark.parametrize("filter_name", ["bicubic", "bilinear"])
def test_pixels_are_immichs(exported: Exported, tmp_path: Path, resize: str, filter_name: str) -> None:
    folder = shutil.copytree(exported["vit"][0], tmp_path / "model")
    edit_json(folder / "visual" / "preprocess_cfg.json", resize_mode=resize, interpolation=filter_name)
    spec = load(folder).pixels
    for width, height in ((90, 71), (47, 80), (40, 40), (25, 33), (127, 41), (33, 32), (32, 35)):
        data = photo(width, height, (0.9, 0.6, 1), "PNG", width)
        wanted = immichs_picture(data, spec.size, resize, filter_name).astype(int)
        difference = np.abs(load_pixels(data, spec).astype(int) - wanted)
        assert difference.max() <= 2 and difference.mean() < 0.5, (width, height)  # by rounding between two steps


def test_token_ids_of_either_type_and_files_that_take_batches(exported: Exported, tmp_path: Path) -> None:
    folder, original = exported["siglip"]
    other = make_immich(tmp_path / "batches", original, ids=torch.int64, batch=True)
    one, many = load(folder), load(other)
    assert (one.text_tower._batch, many.text_tower._batch) == (1, None)
    assert np.allclose(one.encode_texts(TEXTS * 12), many.encode_texts(TEXTS * 12), atol=1e-5)
    assert np.allclose(one.encode_images(photos()), many.encode_images(photos()), atol=1e-5)
    assert one.fingerprint != many.fingerprint  # another file: nobody knows that it computes the same


def test_texts_as_immich_reads_them(exported: Exported) -> None:
    """Padding to the full length, no punctuation and capitals for SigLIP, a language by the script for NLLB."""
    siglip, nllb = load(exported["siglip"][0]), load(exported["nllb_siglip"][0])
    ids, mask = siglip.tokens(["dog"])
    assert ids.shape == (1, 24) and mask.sum() < 24
    assert np.array_equal(siglip.tokens(["  A red,\n Dog! "])[0], siglip.tokens(["a red dog"])[0])
    assert not np.array_equal(nllb.tokens(["a, dog"])[0], nllb.tokens(["a dog"])[0])
    ids, _ = nllb.tokens(["dog", "狗", "dog", "ใบ"])
    firsts = [nllb.tokens._whole.id_to_token(int(one)) for one in ids[:, 0]]
    assert firsts == ["eng_Latn", "zho_Hans", "eng_Latn", "eng_Latn"]  # this tokenizer has no Thai
    assert [nllb.tokens._whole.id_to_token(int(one)) for one in ids[1]].count("eng_Latn") == 0


def test_long_texts_and_unknown_words(exported: Exported) -> None:
    clip, words = load(exported["vit"][0]), load(exported["xlm_roberta"][0])
    long = "dog " * 40
    for encoder in (clip, words):
        assert encoder.cut_tokens([long, "dog"]) == [40 + 2 - 24, 0]
        assert np.array_equal(encoder.encode_texts(long), encoder.encode_texts("dog " * 22))
        assert encoder.encode_texts([]).shape == (0, 24) and encoder.cut_tokens([]) == []
    assert encoder.encode_images([]).shape == (0, 24)
    assert clip.unknown_words(["ᚠ dog"]) == [[]]  # bytes
    assert words.unknown_words(["ᚠ dog", "dog"]) == [["ᚠ"], []]


def test_a_text_tower_that_wants_a_mask(exported: Exported, tmp_path: Path) -> None:
    """M-CLIP's folders take input_ids and attention_mask."""
    import onnx
    from onnx import TensorProto, helper

    folder = shutil.copytree(exported["xlm_roberta"][0], tmp_path / "mclip")
    wanted = load(exported["xlm_roberta"][0]).tokens(TEXTS)
    shape = [1, 24]
    values = [helper.make_tensor_value_info(name, TensorProto.INT32, shape) for name in ("input_ids", "attention_mask")]
    nodes = [
        helper.make_node("Sub", ["input_ids", "attention_mask"], ["both"]),
        helper.make_node("Cast", ["both"], ["embedding"], to=TensorProto.FLOAT),
    ]
    out = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "mclip", values, [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "textual" / "model.onnx")
    expected = (wanted[0] - wanted[1]).astype(np.float32)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(load(folder).encode_texts(TEXTS), expected, atol=1e-6)
