"""Prompts of queries and captions: which they are, and that every verb takes the right side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brivl_search.encoders import load_encoder
from brivl_search.encoders.base import encode_queries, has_sides
from brivl_search.encoders.hf.prompts import Prompts, read_prompts
from brivl_search.encoders.hf.sentence import SentenceEncoder
from brivl_search.encoders.settings import Settings
from brivl_search.errors import EncoderError, UsageError
from tests.support.tiny_hf import edit_json, make_hf

TEXTS = ["a red dog on grass", "草地上的狗"]
SEARCH, CAPTION = "a photo of ", "green square "


def write(folder: Path, prompts: dict[str, Any], default: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    values = {"prompts": prompts, "default_prompt_name": default}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "prompts, default, settings, wanted",
    [
        ({}, None, Settings(), Prompts()),
        ({"query": "q: ", "document": "d: "}, None, Settings(), Prompts("q: ", "d: ")),
        ({"query": "q: ", "passage": "p: "}, None, Settings(), Prompts("q: ", "p: ")),
        ({"query": "q: ", "STS": "s: "}, None, Settings(), Prompts("q: ", "")),
        ({"query": "q: ", "document": "d: "}, "document", Settings(), Prompts("q: ", "d: ", "d: ")),
        ({"retrieval": "r: "}, "retrieval", Settings(), Prompts("r: ", "r: ", "r: ")),
        ({"retrieval": "r: "}, None, Settings(), Prompts()),
        ({"query": "q: ", "STS": "s: "}, None, Settings(None, "STS", "STS"), Prompts("s: ", "s: ")),
        ({"query": "q: "}, None, Settings(None, "find this: ", ""), Prompts("find this: ", "")),
        ({"query": "q: "}, None, Settings(None, ""), Prompts()),
        (
            {"query": "q: ", "查询": "查："},
            None,
            Settings(None, "查找相关的图片", "查询"),
            Prompts("查找相关的图片", "查："),
        ),
        ({"query": None, "document": None}, None, Settings(), Prompts()),
    ],
)
def test_which_prompts(
    tmp_path: Path, prompts: dict[str, Any], default: str | None, settings: Settings, wanted: Prompts
) -> None:
    assert read_prompts("hf:m", write(tmp_path, prompts, default), "clip", settings) == wanted


def test_qwens_instructions_where_its_config_has_none(tmp_path: Path) -> None:
    found = read_prompts("hf:m", write(tmp_path, {"query": "", "document": ""}), "qwen3_vl", Settings())
    assert found.query == "Retrieve images or text relevant to the user's query."
    assert found.document == "Represent the user's input."
    assert read_prompts("hf:m", write(tmp_path, {"query": "q"}), "qwen3_vl", Settings()) == Prompts("q", "")


def test_a_prompt_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    folder = write(tmp_path, {"query": "q: ", "STS": "s: "})
    with pytest.raises(UsageError, match=r"no prompt 'nothing' for query_prompt \(query, STS\): give one of th"):
        read_prompts("hf:m", folder, None, Settings(None, "nothing"))
    with pytest.raises(UsageError, match=r"no prompt 'query' for document_prompt \(it has none\): give a text of s"):
        read_prompts("hf:m", write(tmp_path, {}), None, Settings(None, None, "query"))
    with pytest.raises(EncoderError, match="its default_prompt_name 'x' is none of its prompts"):
        read_prompts("hf:m", write(tmp_path, {"query": "q"}, "x"), None, Settings())
    (folder / "config_sentence_transformers.json").write_text("{", encoding="utf-8")
    with pytest.raises(EncoderError, match=r"config_sentence_transformers\.json cannot be read"):
        read_prompts("hf:m", folder, None, Settings())


def test_models_without_prompts_refuse_them(tmp_path: Path) -> None:
    folder = make_hf(tmp_path / "clip", "clip")
    with pytest.raises(UsageError, match="has no prompts: leave out query_prompt"):
        load_encoder(f"hf:{folder}?query_prompt=query")
    with pytest.raises(UsageError, match="no setting 'prompt': known are dim, query_prompt, document_prompt"):
        load_encoder(f"hf:{folder}?prompt=query")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of sentence-transformers with a prompt for each side."""
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer

    folder = tmp_path_factory.mktemp("st")
    edit_json(make_hf(folder / "clip", "clip") / "tokenizer_config.json", model_max_length=16)
    prompts = {"query": SEARCH, "document": CAPTION}
    whole = SentenceTransformer(modules=[Transformer(str(folder / "clip"))], device="cpu", prompts=prompts)
    whole.save_pretrained(str(folder / "model"))
    return folder / "model"


def load(folder: Path, settings: str = "") -> SentenceEncoder:
    encoder = load_encoder(f"hf:{folder}{settings}", device="cpu", precision="fp32")
    assert isinstance(encoder, SentenceEncoder)
    return encoder


def test_each_side_is_that_of_sentence_transformers(model: Path) -> None:
    from sentence_transformers import SentenceTransformer

    reference, encoder = SentenceTransformer(str(model), device="cpu"), load(model)
    assert has_sides(encoder)
    queries, captions = encoder.encode_queries(TEXTS), encoder.encode_texts(TEXTS)
    assert np.allclose(queries, reference.encode_query(TEXTS, normalize_embeddings=True), atol=1e-5)
    assert np.allclose(captions, reference.encode_document(TEXTS, normalize_embeddings=True), atol=1e-5)
    assert (queries * captions).sum(1).max() < 0.999
    assert np.array_equal(encode_queries(encoder, TEXTS), queries)
    plain = load(model, "?query_prompt=&document_prompt=")
    assert not has_sides(plain) and np.array_equal(plain.encode_queries(TEXTS), plain.encode_texts(TEXTS))
    assert np.allclose(load(model, "?query_prompt=document").encode_queries(TEXTS), captions, atol=1e-6)
    own = load(model, "?document_prompt=the red square ").encode_texts(TEXTS)
    assert np.allclose(own, plain.encode_texts([f"the red square {text}" for text in TEXTS]), atol=1e-5)


def test_the_fingerprint_holds_both_prompts_and_old_ones_stay(model: Path) -> None:
    names = ["", "?query_prompt=", "?document_prompt=", "?query_prompt=&document_prompt=", "?query_prompt=a b"]
    found = {name: load(model, name).fingerprint for name in names}
    assert len(set(found.values())) == len(names)
    assert load(model, "?query_prompt=query").fingerprint == found[""]
    # no side differs from what `encode` gives: the fingerprint that such a model had before there were sides
    from brivl_search.encoders.hf.files import digest
    from brivl_search.encoders.hf.sentence import _hashed

    plain = load(model, "?query_prompt=&document_prompt=")
    old = {"dim": plain.dim, "pixels": plain.pixels.to_dict()}
    assert plain.fingerprint == "st-" + digest(_hashed(model), old)[:24]


class Sides:
    """Colours by name, of which a query has another vector than a caption: an encoder that tells all sides apart."""

    name, dim, fingerprint, calibration = "sides", 4, "sides-1", None
    from brivl_search.corpus.images import PixelSpec

    pixels = PixelSpec(8, "squash")

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        means = pixels.reshape(len(pixels), -1, 3).mean(1) + 1e-3
        return self._unit(np.pad(means, ((0, 0), (0, 1))))

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        return self._unit(np.array([[0.1, 0.1, 0.1, len(text)] for text in texts]))

    def encode_queries(self, texts: list[str]) -> np.ndarray:
        colours = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}
        rows = [next((value for word, value in colours.items() if word in text), (1, 1, 1)) for text in texts]
        return self._unit(np.pad(np.array(rows, dtype=float), ((0, 0), (0, 1))))

    @staticmethod
    def _unit(rows: np.ndarray) -> np.ndarray:
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def warm_up(self) -> None:
        pass

    def cut_tokens(self, texts: list[str]) -> list[int]:
        return [0] * len(texts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from PIL import Image

    place = tmp_path / "photos"
    place.mkdir()
    with (place / "captions.jsonl").open("w", encoding="utf-8") as file:
        for colour in ("red", "green", "blue"):
            Image.new("RGB", (16, 16), colour).save(place / f"{colour}.png")
            file.write(json.dumps({"image": f"{colour}.png", "captions": [f"something {colour}"]}) + "\n")
    return place


def test_search_eval_match_and_classify_ask_and_captions_are_stored(folder: Path, tmp_path: Path) -> None:
    from brivl_search.corpus.dataset import load_dataset
    from brivl_search.embedding.zero_shot import class_vectors, match
    from brivl_search.encoders.plugins import PluggedEncoder
    from brivl_search.evaluation import evaluate_dataset, evaluate_index
    from brivl_search.search.queries import Query, Term
    from brivl_search.search.vectors import embed
    from tests.support.evaluating import build

    encoder = PluggedEncoder(Sides())  # type: ignore[arg-type]
    assert has_sides(encoder)
    asked = Sides().encode_queries(["something green"])
    (vector,) = embed(encoder, [Query((Term("something green"),), 3)])
    assert np.array_equal(vector, asked[0])
    assert np.array_equal(class_vectors(encoder, [["green"]], ["{}"]), asked)
    matched = match(encoder, ["something green"], [str(folder / "green.png"), str(folder / "red.png")])
    assert matched.cosines[0, 0] > 0.99 and matched.cosines[0, 1] < 0.1
    both = {
        "dataset": evaluate_dataset(load_dataset(folder), encoder, [1], lambda done: None, workers=0),
        "index": evaluate_index(build(folder, tmp_path / "index", encoder), [1], encode=encoder.encode_queries),
        "captions as queries": evaluate_index(build(folder, tmp_path / "index", encoder), [1]),
    }
    exact = {name: (one.text_to_image["exact"], one.image_to_text["exact"]) for name, one in both.items()}
    figures = {name: [one.recall[1] for one in ways if one is not None] for name, ways in exact.items()}
    assert figures["dataset"] == figures["index"]
    assert figures["index"][0] == 100 and figures["index"][1] < 100
    assert figures["captions as queries"][0] < 100  # captions are stored as captions


def test_the_servers_thread_tells_queries_from_captions() -> None:
    from types import SimpleNamespace

    from brivl_search.server.workers.service import Caption, Service

    service: Any = SimpleNamespace(encoder=Sides(), _encoded=lambda *_: None)
    texts = ["a red dog", Caption("a red dog"), Caption("dog"), "a red dog"]
    found = np.stack(Service._encode_texts(service, texts))
    assert np.array_equal(found[[0, 3]], Sides().encode_queries(["a red dog"] * 2))
    assert np.array_equal(found[[1, 2]], Sides().encode_texts(["a red dog", "dog"]))


TEMPLATE = """{%- if messages[0].role != 'system' %}<|im_start|>system
Represent the user's input.<|im_end|>
{% endif %}{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}{%
if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% elif part.type == 'text' %}{{ part.text }}{%
endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""  # as the published template writes a chat


def make_qwen(folder: Path) -> Path:
    """A small random Qwen3-VL as sentence-transformers saves it; its config names no prompts."""
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from tokenizers import pre_tokenizers

    marks = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = transformers.Qwen2Tokenizer(vocab={letter: n for n, letter in enumerate(letters)}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    ids = dict(zip(marks, tokenizer.convert_tokens_to_ids(marks), strict=True))
    small = {"hidden_size": 32, "intermediate_size": 64}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    text = {**small, **heads, "vocab_size": len(tokenizer) + 8, "max_position_embeddings": 512, "rope_parameters": rope}
    grid = {"patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 64}
    vision = {**small, **grid, "depth": 2, "num_heads": 2, "out_hidden_size": 32, "deepstack_visual_indexes": [0, 1]}
    config = transformers.Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    torch.manual_seed(0)
    model = transformers.Qwen3VLModel(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.dim() > 1:
                value.normal_(0, 1.0 if "embed" in name else 1 / value[0].numel() ** 0.5)
    model.save_pretrained(folder / "parts")
    cells = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
    transformers.Qwen3VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(**cells, min_pixels=32 * 32, max_pixels=64 * 64),
        tokenizer=tokenizer,
        video_processor=transformers.Qwen3VLVideoProcessor(**cells),
        chat_template=TEMPLATE,
    ).save_pretrained(folder / "parts")
    parts = [Transformer(str(folder / "parts")), Pooling(32, pooling_mode="lasttoken")]
    SentenceTransformer(modules=parts, device="cpu").save_pretrained(str(folder / "whole"))
    return folder / "whole"


@pytest.mark.slow
def test_qwen3_vl_embedding_gets_its_instructions(tmp_path: Path) -> None:
    """It is the system's message: one for a query, and the published default for captions and pictures."""
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("transformers.models.qwen3_vl")
    from PIL import Image
    from sentence_transformers import SentenceTransformer

    folder = make_qwen(tmp_path)
    encoder, reference = load(folder), SentenceTransformer(str(folder), device="cpu")

    def wanted(items: list[Any], instruction: str) -> np.ndarray:
        found = [reference.encode([one], prompt=instruction, normalize_embeddings=True)[0] for one in items]
        return np.stack(found)

    texts = [{"text": text} for text in TEXTS]
    search, represent = encoder.prompts.query, encoder.prompts.document
    assert search == "Retrieve images or text relevant to the user's query."
    assert np.allclose(encoder.encode_queries(TEXTS), wanted(texts, search), atol=1e-4)
    assert np.allclose(encoder.encode_texts(TEXTS), wanted(texts, represent), atol=1e-4)
    assert (encoder.encode_queries(TEXTS) * encoder.encode_texts(TEXTS)).sum(1).max() < 0.99
    colours = ("red", "green")
    pixels = np.stack([np.asarray(Image.new("RGB", (encoder.pixels.size,) * 2, colour)) for colour in colours])
    pictures = [{"image": Image.fromarray(one)} for one in pixels]
    images = encoder.encode_images(pixels)
    assert np.allclose(images, wanted(pictures, represent), atol=1e-4)
    other = load(folder, "?document_prompt=Classify the picture.")
    assert (other.encode_images(pixels) * images).sum(1).max() < 0.9999
    assert other.fingerprint != encoder.fingerprint
