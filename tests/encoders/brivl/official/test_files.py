"""Files of the published BriVL: reading them, converting them, and the parity check with its sample."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from brivl_search.corpus.images import decode
from brivl_search.encoders import load_encoder
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.brivl.numpy_text import NumpyTextTower
from brivl_search.encoders.brivl.official.checkpoint import OfficialCheckpoint, published_config
from brivl_search.encoders.brivl.official.convert import convert
from brivl_search.encoders.brivl.official.parity import check_sample
from brivl_search.errors import CorpusError, EncoderError, UsageError
from tests.support.folders import SHARED
from tests.support.official import (
    TEXTS,
    Reference,
    apart,
    photo,
    tiny_fixture,  # noqa: F401 - the fixture `tiny`
    tiny_official,
    write_official,
)
from tests.support.site import Ended

# -- reading and converting --------------------------------------------------------------------------------------


def test_conversion_keeps_the_vectors(tiny: tuple[Path, Reference], tmp_path: Path) -> None:
    path, _ = tiny
    source = load_encoder(f"official:{path}", device="cpu", precision="fp32")
    done = convert(OfficialCheckpoint(str(path)), tmp_path / "out", half=False)
    encoder = load_encoder(str(tmp_path / "out"), device="cpu", precision="fp32")
    pixels = np.stack([decode(photo(i), encoder.pixels).pixels for i in range(2)])
    np.testing.assert_array_equal(encoder.encode_images(pixels), source.encode_images(pixels))
    np.testing.assert_array_equal(encoder.encode_texts(TEXTS), source.encode_texts(TEXTS))
    assert (tmp_path / "out/README.md").read_text().startswith("# tiny-official") and not done.momentum
    assert not (tmp_path / "out/momentum.safetensors").exists()
    half = convert(OfficialCheckpoint(str(path)), tmp_path / "half")
    assert half.bytes < 0.6 * done.bytes
    small = load_encoder(str(tmp_path / "half"), device="cpu", precision="fp32")
    assert (small.encode_texts(TEXTS) * source.encode_texts(TEXTS)).sum(1).min() > 0.99999
    with pytest.raises(UsageError, match="not empty"):
        convert(OfficialCheckpoint(str(path)), tmp_path / "out")


def test_round_trip_back_to_the_official_names(tiny: tuple[Path, Reference], tmp_path: Path) -> None:
    """Every number of the file is in the folder, momentum copies included where they are asked for."""
    path, _ = tiny
    convert(OfficialCheckpoint(str(path)), tmp_path / "out", half=False, keep_momentum=True)
    state = torch.load(path, weights_only=True)["learnable"]
    back = {
        "image.backbones.0.net.": "imgencoder.backbone.",
        "image.project.": "imgencoder.learnable.max_pool.0.",
        "image.head.attention.": "imgencoder.learnable.imgAtt.",
        "image.head.": "imgencoder.learnable.imgFC.",
        "text.backbone.": "textencoder.backbone.bert.",
        "text.head.attention.": "textencoder.learnable.textAtt.",
        "text.head.": "textencoder.learnable.textFC.",
    }
    seen = set()
    for file, suffix in (("model.safetensors", ""), ("momentum.safetensors", "_mom")):
        for name, tensor in load_file(tmp_path / "out" / file).items():
            ours = next(prefix for prefix in back if name.startswith(prefix))
            theirs = (back[ours] + name.removeprefix(ours)).replace("encoder.", f"encoder{suffix}.", 1)
            torch.testing.assert_close(tensor.reshape(state[theirs].shape), state[theirs], rtol=0, atol=0)
            seen.add(theirs)
    left = {name for name in state if name not in seen}
    assert {n.split(".", 1)[1] for n in left} == {
        "backbone.classifier.weight",
        "backbone.classifier.bias",
        "backbone.bert.pooler.dense.weight",
        "backbone.bert.pooler.dense.bias",
        "backbone.bert.embeddings.position_ids",
    }


def test_corrected_conversion_differs_and_says_so(tiny: tuple[Path, Reference], tmp_path: Path) -> None:
    path, _ = tiny
    convert(OfficialCheckpoint(str(path)), tmp_path / "out", parity=False)
    encoder = load_encoder(str(tmp_path / "out"))
    assert (
        encoder.pixels.antialias and "without the published code's quirks" in (tmp_path / "out/README.md").read_text()
    )
    convert(OfficialCheckpoint(str(path)), tmp_path / "same")
    assert load_encoder(str(tmp_path / "same")).fingerprint != encoder.fingerprint


def test_numpy_text_tower_sees_padding_too(tiny: tuple[Path, Reference], tmp_path: Path) -> None:
    path, reference = tiny
    convert(OfficialCheckpoint(str(path)), tmp_path / "out", half=False)
    encoder = BriVLEncoder(tmp_path / "out")
    ids = encoder.tokenizer.ids(TEXTS)
    assert apart(NumpyTextTower(tmp_path / "out", encoder.config.text).encode(ids), reference.texts(ids)) < 1e-5


def test_one_tower_alone(tmp_path: Path) -> None:
    reference = write_official(tmp_path / "t.pth", only="textencoder.")
    encoder = load_encoder(f"official:{tmp_path}/t.pth", device="cpu", precision="fp32")
    assert isinstance(encoder, BriVLEncoder)
    assert apart(encoder.encode_texts(TEXTS), reference.texts(encoder.tokenizer.ids(TEXTS))) < 1e-5
    with pytest.raises(EncoderError, match=r"holds no image tower: it has no tensors imgencoder\.\*"):
        encoder.encode_images(np.zeros((1, 96, 96, 3), np.uint8))
    with pytest.raises(EncoderError, match="no image tower"):
        convert(OfficialCheckpoint(f"{tmp_path}/t.pth"), tmp_path / "both")
    convert(OfficialCheckpoint(f"{tmp_path}/t.pth"), tmp_path / "text", towers=["text"])
    folder = load_encoder(str(tmp_path / "text"), device="cpu")
    assert folder.encode_texts(["dog"]).shape == (1, 24)
    with pytest.raises(EncoderError, match="holds no image tower"):
        folder.encode_images(np.zeros((1, 96, 96, 3), np.uint8))
    with pytest.raises(EncoderError, match="holds no momentum copy of the text tower"):
        convert(OfficialCheckpoint(f"{tmp_path}/t.pth"), tmp_path / "m", towers=["text"], keep_momentum=True)


def test_files_of_old_torch_and_of_other_wrappings(tiny: tuple[Path, Reference], tmp_path: Path) -> None:
    """The format before torch 1.6, a bare state dict, DataParallel's prefix: the same vectors."""
    path, _ = tiny
    want = load_encoder(f"official:{path}", device="cpu", precision="fp32").encode_texts(TEXTS)
    write_official(tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    state = torch.load(path, weights_only=True)["learnable"]
    for name, raw in (("bare", state), ("parallel", {"learnable": {f"module.{n}": t for n, t in state.items()}})):
        torch.save(raw, tmp_path / f"{name}.pth")
        (tmp_path / f"{name}.json").write_text(json.dumps(tiny_official()))
    for name in ("old", "bare", "parallel"):
        encoder = load_encoder(f"official:{tmp_path}/{name}.pth", device="cpu", precision="fp32")
        np.testing.assert_allclose(encoder.encode_texts(TEXTS), want, atol=1e-6)


def test_fingerprint_follows_weights_sizes_and_boxes(tiny: tuple[Path, Reference], tmp_path: Path) -> None:
    path, _ = tiny
    base = OfficialCheckpoint(str(path)).fingerprint
    write_official(tmp_path / "a.pth")
    assert OfficialCheckpoint(f"{tmp_path}/a.pth").fingerprint == base  # the same numbers elsewhere
    write_official(tmp_path / "b.pth", seed=1)
    assert OfficialCheckpoint(f"{tmp_path}/b.pth").fingerprint != base
    raw = tiny_official()
    raw["text"]["max_length"] = 12
    (tmp_path / "short.json").write_text(json.dumps(raw))
    assert OfficialCheckpoint(f"{path}@{tmp_path}/short.json").fingerprint != base
    (tmp_path / "x.jsonl").write_text('{"image_id": "a.jpg", "bbox": [[0, 0, 1, 1]]}\n')
    with_boxes = load_encoder(f"official:{path}+boxes={tmp_path}/x.jsonl")
    (tmp_path / "y.jsonl").write_text('{"image_id": "a.jpg", "bbox": [[0, 0, 1, 2]]}\n')
    other = load_encoder(f"official:{path}+boxes={tmp_path}/y.jsonl")
    assert len({base, with_boxes.fingerprint, other.fingerprint}) == 3
    assert load_encoder(with_boxes.name).fingerprint == with_boxes.fingerprint  # what an index remembers


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("owned",))


def test_what_is_not_a_brivl_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text(json.dumps(tiny_official()))
    with pytest.raises(EncoderError, match="there is no file"):
        load_encoder(f"official:{tmp_path}/nothing.pth")
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"learnable": Evil()}))
    with pytest.raises(EncoderError, match="cannot be read as a checkpoint of plain tensors"):
        OfficialCheckpoint(f"{tmp_path}/x.pth").state()
    assert "owned" not in capsys.readouterr().out
    torch.save({"learnable": {"weight": torch.zeros(2)}}, tmp_path / "x.pth")
    with pytest.raises(EncoderError, match=r"no tensors imgencoder\.\*"):
        OfficialCheckpoint(f"{tmp_path}/x.pth").state()
    write_official(tmp_path / "x.pth")
    (tmp_path / "x.pth").write_bytes((tmp_path / "x.pth").read_bytes()[:-5000])
    with pytest.raises(EncoderError):
        load_encoder(f"official:{tmp_path}/x.pth").encode_texts(["dog"])


def test_weights_of_another_size_are_named(tiny: tuple[Path, Reference], tmp_path: Path) -> None:
    path, _ = tiny
    raw = tiny_official()
    raw["text"]["backbone"]["num_hidden_layers"] = 1
    (tmp_path / "c.json").write_text(json.dumps(raw))
    checkpoint = OfficialCheckpoint(f"{path}@{tmp_path}/c.json")
    with pytest.raises(EncoderError, match=r"does not fit tiny-official: .*backbone\.encoder\.layer\.1"):
        load_encoder(checkpoint.name).encode_texts(["dog"])
    with pytest.raises(EncoderError, match=r"text tower: there is no place for backbone\.encoder\.layer\.1"):
        convert(checkpoint, tmp_path / "out", towers=["text"])
    raw = tiny_official() | {"dim": 25}
    (tmp_path / "d.json").write_text(json.dumps(raw))
    with pytest.raises(EncoderError, match=r"head\.fc1\.bias is \(24,\), not \(25,\)"):
        convert(OfficialCheckpoint(f"{path}@{tmp_path}/d.json"), tmp_path / "out")


def test_vocabulary_beside_the_file_or_a_way_out(
    tiny: tuple[Path, Reference], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = tiny
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    moved = tmp_path / "alone.pth"
    moved.write_bytes(path.read_bytes())
    moved.with_suffix(".json").write_text(json.dumps(tiny_official()))
    with pytest.raises(EncoderError, match=r"put its vocab\.txt beside the checkpoint, or set HF_ENDPOINT"):
        load_encoder(f"official:{moved}").encode_texts(["dog"])
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *map(str, range(200))]))
    with pytest.raises(EncoderError, match="a vocabulary of 204 words for 120 word embeddings"):
        load_encoder(f"official:{moved}").encode_texts(["dog"])


# -- the parity check --------------------------------------------------------------------------------------------


@pytest.fixture
def sample(tiny: tuple[Path, Reference], tmp_path: Path) -> Path:
    """A sample like BriVL's, with the vectors that the reference gives for it."""
    path, reference = tiny
    encoder = BriVLEncoder(OfficialCheckpoint(str(path)))
    sizes = [(300, 180), (120, 200), (160, 160)]
    data = [photo(i + 7, size) for i, size in enumerate(sizes)]
    boxes = [[[10 * i, 20, 90, 100 + i], [0, 0, 50, 60]] for i in range(3)]
    folder = tmp_path / "sample"
    folder.mkdir()
    lines = []
    for i, content in enumerate(data):
        (folder / f"p{i}.png").write_bytes(content)
        sentences = [["alt_text", "dog"], ["sur_text", TEXTS[i]]]
        lines.append(json.dumps({"image_id": f"../data/imgs/p{i}.png", "sentences": sentences, "bbox": boxes[i]}))
    (folder / "example.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    square = [
        [[v * 96 / s for v, s in zip(b, size * 2, strict=True)] for b in some]
        for some, size in zip(boxes, sizes, strict=True)
    ]
    np.save(folder / "np_img.npy", reference.images([reference.pixels(one) for one in data], square))
    np.save(folder / "np_text.npy", reference.texts(encoder.tokenizer.ids(TEXTS[:3])))
    return folder


def test_check_reproduces_a_sample(tiny: tuple[Path, Reference], sample: Path, tmp_path: Path) -> None:
    path, _ = tiny
    encoder = load_encoder(f"official:{path}", device="cpu", precision="fp32")
    assert isinstance(encoder, BriVLEncoder)
    report = check_sample(encoder, sample)
    assert report.ok and report.names == ["p0.png", "p1.png", "p2.png"] and encoder.boxes is None
    assert min(report.image_cosines) > 0.9999 and min(report.text_cosines) > 0.9999
    convert(OfficialCheckpoint(str(path)), tmp_path / "out", half=False)
    folder = load_encoder(str(tmp_path / "out"), device="cpu", precision="fp32")
    assert isinstance(folder, BriVLEncoder) and check_sample(folder, sample).ok
    (sample / "np_text.npy").unlink()
    with pytest.raises(UsageError, match=r"it has no np_text\.npy"):
        check_sample(encoder, sample)


def test_check_as_a_verb(
    tiny: tuple[Path, Reference],
    sample: Path,
    tmp_path: Path,
    run_here: Callable[..., Ended],
) -> None:
    def call(*arguments: str) -> Ended:
        return run_here("models", *arguments)

    path, _ = tiny
    code, out, err = call("check", f"official:{path}", "--sample", str(sample), "--device", "cpu")
    found = json.loads(out)
    assert code == 0 and found["ok"] and len(found["scores"]) == 3, err
    code, out, err = call("check", f"official:{path}", "--sample", str(sample), "--format", "table", "--device", "cpu")
    assert code == 0 and "published" in out and f"{found['published'][0]:.3f}" in out
    write_official(tmp_path / "other.pth", seed=5)
    code, out, err = call("check", f"official:{tmp_path}/other.pth", "--sample", str(sample), "--device", "cpu")
    assert code == 1 and not json.loads(out)["ok"]
    assert "does not reproduce the sample: a score is off by more than 0.01" in err and "Traceback" not in err
    code, _, err = call("check", "brivl-mini", "--sample", str(tmp_path / "nowhere"))
    assert code == 2 and "is not a BriVL sample" in err
    code, _, err = call("convert", f"official:{path}", str(tmp_path / "out"), "--towers", "text")
    assert code == 0 and "text tower" in err and (tmp_path / "out/config.json").is_file()
    code, _, err = call("convert", f"official:{path}", str(tmp_path / "o"), "--towers", "audio")
    assert code == 2 and "--towers audio" in err
    code, _, err = call("convert", str(path), str(tmp_path / "o"))
    assert code == 2 and f"write official:{path}" in err


@pytest.mark.shared
def test_the_published_sample_scores_what_its_vectors_say() -> None:
    """Without the weights: the sample is read whole, and its own vectors give .611, .818 and .744."""
    folder = SHARED / "data/brivl-official-sample"
    if not folder.is_dir():
        pytest.skip("no ../shared")
    images, texts = np.load(folder / "np_img.npy"), np.load(folder / "np_text.npy")

    class Known(BriVLEncoder):
        """Answers with the published vectors; everything around it is real."""

        def __init__(self) -> None:
            self.name, self.dim, self.boxes = "known", 2048, None
            self.pixels = published_config("brivl-1.0").image.pixels

        def encode_unrounded(self, pixels: np.ndarray, origins: Any) -> np.ndarray:
            assert self.boxes is not None and pixels.shape == (3, 380, 380, 3)
            found = self.boxes.find(pixels, origins)
            assert [None if f is None else f.shape for f in found] == [(100, 4)] * 3
            return images

        def encode_texts(self, texts_: Any) -> np.ndarray:
            assert texts_[0] == "诺伍德大厅酒店位于阿伯丁，是家4星级酒店。"
            return texts

    report = check_sample(Known(), folder)
    assert [round(score, 3) for score in report.scores] == [0.611, 0.818, 0.744]


def test_a_broken_sample_is_one_line(tiny: tuple[Path, Reference], sample: Path) -> None:
    path, _ = tiny
    encoder = BriVLEncoder(OfficialCheckpoint(str(path)), device="cpu")
    np.save(sample / "np_img.npy", np.zeros((3, 7), np.float32))
    with pytest.raises(EncoderError, match="24 dimensions, the sample has 7"):
        check_sample(encoder, sample)
    (sample / "example.jsonl").write_text('{"image_id": "p0.png"}\n')
    with pytest.raises(CorpusError, match="1 lines, 3 pictures, 3 texts"):
        check_sample(encoder, sample)
