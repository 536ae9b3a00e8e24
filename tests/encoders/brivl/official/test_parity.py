"""The parity check with the sample in BriVL's repository."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brivl_search.encoders import load_encoder
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.brivl.official.checkpoint import OfficialCheckpoint, published_config
from brivl_search.encoders.brivl.official.convert import convert
from brivl_search.encoders.brivl.official.parity import check_sample
from brivl_search.errors import CorpusError, EncoderError, UsageError
from tests.support.folders import SHARED
from tests.support.official import (
    TEXTS,
    Reference,
    photo,
    tiny_fixture,  # noqa: F401 - the fixture `tiny`
    write_official,
)
from tests.support.site import Ended


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
