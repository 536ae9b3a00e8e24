"""Checkpoints of every two-tower class of transformers with random weights, and tokenizers made of a few words.

The fixture `checkpoints` is one of each: import `checkpoints_fixture`. `TEXTS` and `photos()` are what they embed.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from brivl_search.encoders import load_encoder
from brivl_search.encoders.hf.encoder import TransformersEncoder
from brivl_search.encoders.hf.family import FAMILIES

ENGLISH = "a the red green blue circle square cross on in with photo of dog grass"
WORDS = [*ENGLISH.split(), *"一只在草地上的狗红绿蓝色圆方块"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz", *"0123456789", *'.,!?"-“”']
SIDE = 32
VISION_TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 8,
}
TEXT_TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
CLIP_PICTURES = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
KINDS = [kind for kind in FAMILIES if kind != "fgclip2"]  # transformers has no class of its own: `tiny_fgclip`
TEXTS = [
    "a red dog on grass",
    "草地上的狗",
    "Dog, Blue!",
    "a photo of a green square with a red circle on the grass 草地",
]
COLOURS = ((1, 0, 0), (0, 1, 0.1), (0, 0, 1), (1, 1, 0), (0.9, 0.9, 1))


def make_hf(folder: Path, kind: str, seed: int = 0, **changes: Any) -> Path:
    """A checkpoint as `save_pretrained` writes it, with its tokenizer and image processor."""
    import transformers

    torch.manual_seed(seed)
    tokenizer, settings = _tokenizer(kind, folder)
    text = {**TEXT_TOWER, **settings}
    vision = dict(VISION_TOWER)
    name = {"clip": "CLIP", "chinese_clip": "ChineseCLIP", "altclip": "AltCLIP", "metaclip_2": "MetaClip2"}.get(kind)
    rest: dict[str, Any] = {"projection_dim": 24}
    if kind == "altclip":
        text["project_dim"] = 24
    if kind.startswith("siglip"):
        name, rest = kind.capitalize(), {}
    if kind == "siglip2":
        vision = {**vision, "num_patches": 16}
        del vision["image_size"]
    config_class, model_class = getattr(transformers, f"{name}Config"), getattr(transformers, f"{name}Model")
    config = config_class(text_config=text, vision_config=vision, **{**rest, **changes})
    model = model_class(config).eval()
    with torch.no_grad():  # at their own small start, all random towers give nearly the same vector
        for key, value in model.named_parameters():
            if value.dim() > 1:
                value.normal_(0, 2.0 if "word_emb" in key or "token_emb" in key else 0.3)
    model.save_pretrained(folder)
    _processor(kind).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _processor(kind: str) -> Any:
    import transformers

    if kind == "siglip2":
        return transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
    if kind == "siglip":
        return transformers.SiglipImageProcessor(size={"height": SIDE, "width": SIDE})
    if kind == "chinese_clip":  # as published: squashed
        return transformers.ChineseCLIPImageProcessor(size={"height": SIDE, "width": SIDE}, do_center_crop=False)
    return transformers.CLIPImageProcessor(**CLIP_PICTURES)


def _tokenizer(kind: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    if kind == "chinese_clip":
        vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{x}" for x in LETTERS), *WORDS]
        vocab = list(dict.fromkeys(vocab))
        tokenizer = transformers.BertTokenizer(vocab={word: n for n, word in enumerate(vocab)})
        return tokenizer, {"vocab_size": len(vocab), "max_position_embeddings": 64}
    if kind == "clip":
        pieces = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{x}</w>" for x in LETTERS)]
        merges = [("d", "o"), ("do", "g</w>"), ("r", "e"), ("re", "d</w>")]
        pieces += ["".join(pair) for pair in merges]
        vocab_of = {piece: n for n, piece in enumerate(dict.fromkeys(pieces))}
        tokenizer = transformers.CLIPTokenizer(vocab=vocab_of, merges=merges)
        ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
        return tokenizer, {"vocab_size": len(vocab_of), "max_position_embeddings": 16, **ends}
    if kind in ("altclip", "metaclip_2"):
        scored = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
        scored += [(f"▁{word}", -3.0) for word in WORDS] + [(letter, -4.0) for letter in LETTERS]
        scored += [(word, -4.0) for word in WORDS if len(word) == 1 and word not in LETTERS]
        scored.append(("<mask>", 0.0))
        tokenizer = transformers.XLMRobertaTokenizer(vocab=scored)
        ends = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
        return tokenizer, {"vocab_size": len(scored), "max_position_embeddings": 20, **ends}
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{n:02X}>" for n in range(256)), "▁", *LETTERS]
    pieces += [word for word in WORDS if word not in LETTERS]
    merges = [("d", "o"), ("do", "g"), ("r", "e"), ("re", "d")]
    pieces += ["".join(pair) for pair in merges]
    vocab_of = {piece: n for n, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = transformers.Siglip2Tokenizer(vocab=vocab_of, merges=merges)
    ends = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    return tokenizer, {"vocab_size": len(vocab_of), "max_position_embeddings": 16, **ends}


def edit_json(path: Path, **values: Any) -> None:
    """Changes fields of a JSON file; None removes one."""
    found = json.loads(path.read_text(encoding="utf-8"))
    found |= values
    path.write_text(json.dumps({k: v for k, v in found.items() if v is not None}), encoding="utf-8")


def make_hub(repo: str, files: dict[str, bytes], asked: list[str]) -> ThreadingHTTPServer:
    """A Hugging Face hub with one model, on a free port of this machine; fetched files are noted in `asked`."""
    commit = "c" * 40

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            marker = f"/{repo}/resolve/"
            if path.startswith(f"/api/models/{repo}"):
                siblings = [{"rfilename": name} for name in files]
                body = json.dumps({"id": repo, "modelId": repo, "sha": commit, "siblings": siblings}).encode()
                if "/tree/" in path:
                    body = json.dumps(
                        [
                            {"type": "file", "path": n, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
                            for n, b in files.items()
                        ]
                    ).encode()
                self._answer(body, {"Content-Type": "application/json"})
            elif path.startswith(marker) and (name := path.removeprefix(marker).split("/", 1)[1]) in files:
                if self.command == "GET":
                    asked.append(name)
                digest = hashlib.sha256(files[name]).hexdigest()
                self._answer(files[name], {"X-Repo-Commit": commit, "ETag": f'"{digest}"'})
            else:
                self.send_error(404)

        def _answer(self, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(200)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture(scope="session", name="checkpoints")
def checkpoints_fixture(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("hf")
    return {kind: make_hf(folder / kind, kind) for kind in KINDS}


def load(folder: Path, **options: Any) -> TransformersEncoder:
    encoder = load_encoder(f"hf:{folder}", device="cpu", precision="fp32", **options)
    assert isinstance(encoder, TransformersEncoder)
    return encoder


def photo(width: int, height: int, colour: tuple[float, float, float], kind: str, seed: int = 0) -> bytes:
    """Noise as photographs have it, of all sizes and most of it large."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.rfftfreq(width)[None], np.fft.fftfreq(height)[:, None])
    frequency[0, 0] = 1
    grey = rng.normal(size=(height, frequency.shape[1])) + 1j * rng.normal(size=(height, frequency.shape[1]))
    wave = np.fft.irfft2(grey / frequency, s=(height, width))
    picture = (128 + 50 * wave / wave.std())[..., None] * np.array(colour)
    buffer = io.BytesIO()
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(
        buffer, kind, **({"quality": 92} if kind == "JPEG" else {})
    )
    return buffer.getvalue()


def photos() -> list[bytes]:
    """JPEGs and PNGs of several shapes, odd sides among them, up to four times the tower's side."""
    shapes = ((90, 71, "JPEG"), (47, 80, "PNG"), (40, 40, "JPEG"), (25, 33, "PNG"), (127, 41, "PNG"))
    return [photo(w, h, COLOURS[n], kind, n) for n, (w, h, kind) in enumerate(shapes)]
