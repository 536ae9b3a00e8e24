"""Exported towers: they give torch's vectors, are made once, made again where they are damaged, and torch helps out."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brivl_search.encoders import calibration, hub_corrections, load_encoder
from brivl_search.encoders.calibration import Calibration
from brivl_search.encoders.runtimes import exports, make, measured, order, store
from brivl_search.encoders.runtimes.choice import SAFE, Choice, installed
from brivl_search.encoders.runtimes.made import packed, texts
from brivl_search.errors import EncoderError, TowerWarning, UsageError
from brivl_search.metrics.hub_correction import HubCorrection
from tests.support.tiny_fgclip import make_fgclip
from tests.support.tiny_hf import make_hf

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::brivl_search.errors.TowerWarning")
IN_OWN_PROCESS = order.in_own_process
REPOSITORY = Path(__file__).resolve().parents[3]
RUNTIMES = [
    pytest.param(name, marks=pytest.mark.skipif(not installed(name), reason=f"{name} is not installed"))
    for name in ("onnx", "openvino")
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own; exports are made in this process, which is faster here."""
    monkeypatch.setenv("BRIVL_SEARCH_EXPORTS", str(tmp_path / "exports"))
    monkeypatch.setattr(order, "in_own_process", make.make)
    return tmp_path / "exports"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"hf:{make_hf(tmp_path_factory.mktemp('hf') / 'clip', 'clip')}"


def both(name: str, **options: Any) -> tuple[Any, Any]:
    """The encoder by torch in float32, and as the options say."""
    torch = load_encoder(name, runtime="torch", precision="fp32", device="cpu")
    return torch, load_encoder(name, **options)


def pixels(encoder: Any, count: int = 5) -> np.ndarray:
    size = encoder.pixels.size
    return packed(np.random.default_rng(0).integers(0, 255, (count, size, size, 3), dtype=np.uint8), encoder.pixels)


def alike(encoders: tuple[Any, Any], least: float = 0.9999) -> None:
    """Both give the same vectors for pictures and texts, of unit length, whatever the batch."""
    torch, ours = encoders
    for kind, given in (("images", pixels(torch)), ("texts", texts(9))):
        want, got = (getattr(one, f"encode_{kind}")(given) for one in (torch, ours))
        assert (want * got).sum(1).min() > least
        np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)
        assert got.dtype == np.float32
        np.testing.assert_allclose(getattr(ours, f"encode_{kind}")(given[2:3]), got[2:3], atol=2e-2)
    assert ours.encode_images(pixels(torch)[:0]).shape == (0, torch.dim) == ours.encode_texts([]).shape
    assert ours.exports.tower("image") is not None and ours.exports.tower("text") is not None


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("kind", ["clip", "chinese_clip", "altclip", "metaclip_2", "siglip", "siglip2"])
def test_models_of_transformers(kind: str, runtime: Any, tmp_path: Path) -> None:
    encoders = both(f"hf:{make_hf(tmp_path / kind, kind)}", runtime=runtime, precision="fp32")
    alike(encoders)
    torch, ours = encoders
    assert type(ours.tokenizer).__name__ == "FastTokens"
    assert ours.cut_tokens(texts(9)) == torch.cut_tokens(texts(9))
    assert ours.unknown_words(texts(9)) == torch.unknown_words(texts(9))
    assert (ours.name, ours.fingerprint) == (torch.name, torch.fingerprint)


@pytest.mark.parametrize("kind", ["vit", "resnet", "xlm_roberta", "nllb_siglip", "coca", "mobileclip"])
def test_models_of_open_clip(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    from tests.support.tiny_open_clip import make_open_clip

    encoders = both(f"open_clip:{make_open_clip(tmp_path / kind, kind)}", runtime="onnx")
    alike(encoders)
    torch, ours = encoders
    assert ours.cut_tokens(texts(9)) == torch.cut_tokens(texts(9))
    assert ours.unknown_words(texts(9)) == torch.unknown_words(texts(9))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_checkpoint_of_ours(tiny_checkpoint: Path, runtime: Any) -> None:
    alike(both(str(tiny_checkpoint), runtime=runtime, precision="fp32"))


def test_a_cut_model_is_cut(clip: str) -> None:
    torch, ours = both(clip, runtime="onnx")
    ours.dim = 8  # as a Matryoshka model's would be
    vectors = ours.encode_images(pixels(torch))
    whole = torch.encode_images(pixels(torch))[:, :8]
    np.testing.assert_allclose(vectors, whole / np.linalg.norm(whole, axis=1, keepdims=True), atol=1e-5)


@pytest.mark.skipif(not installed("openvino"), reason="OpenVINO is not installed")
def test_bf16_by_openvino(clip: str) -> None:
    alike(both(clip, runtime="openvino", precision="bf16"), least=0.999)


def test_an_export_is_made_once_and_said_to_be(clip: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder: Any = load_encoder(clip, runtime="onnx")
    with pytest.warns(
        TowerWarning, match="the image tower of hf:.* is exported for ONNX Runtime, fp32; this happens once"
    ):
        encoder.encode_images(pixels(encoder))
    assert [path.name.partition("-image-")[2] for path in cache.iterdir()] == ["onnx-fp32-1"]
    monkeypatch.setattr(order, "in_own_process", lambda given: pytest.fail("made again"))
    again: Any = load_encoder(clip, runtime="onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again.encode_images(pixels(encoder))


@pytest.mark.parametrize("harm", ["shorter", "of the same length"])
def test_a_damaged_export_is_made_again(clip: str, cache: Path, harm: str) -> None:
    torch, ours = both(clip, runtime="onnx")
    with pytest.warns(TowerWarning):
        ours.encode_images(pixels(torch))
    (path,) = cache.glob("*/model.onnx")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100] if harm == "shorter" else b"\xff" * len(whole))
    again: Any = load_encoder(clip, runtime="onnx")
    with pytest.warns(TowerWarning, match="is exported"):
        vectors = again.encode_images(pixels(torch))
    np.testing.assert_allclose(vectors, torch.encode_images(pixels(torch)), atol=1e-4)


def test_both_walks_of_fg_clip_2(tmp_path: Path) -> None:
    """One file holds both: a row's length tells which it is."""
    encoders = both(f"hf:{make_fgclip(tmp_path / 'fgclip')}?patches=20", runtime="onnx", precision="fp32")
    alike(encoders)
    torch, ours = encoders
    assert type(ours.tokenizer).__name__ == "FastTokens"
    assert len(set(ours._is_long(texts(9)))) == 2
    assert ours.cut_tokens(texts(9)) == torch.cut_tokens(texts(9))
    assert ours.fingerprint == torch.fingerprint


def test_what_cannot_be_exported_is_computed_by_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers 5.0 resized SigLIP 2's positions picture by picture, with a filter that has no form in ONNX."""
    from torch.nn.functional import interpolate, pad
    from transformers.models.siglip2.modeling_siglip2 import Siglip2VisionEmbeddings

    def one_by_one(positions: Any, shapes: Any, max_length: int) -> Any:
        import torch

        table, found = positions.permute(2, 0, 1)[None], []
        for shape in shapes.tolist():
            rows = interpolate(table, shape, mode="bilinear", align_corners=False, antialias=True)[0].flatten(1).T
            found.append(pad(rows, (0, 0, 0, max_length - len(rows))))
        return torch.stack(found)

    name = f"hf:{make_hf(tmp_path / 'siglip2', 'siglip2')}"
    wanted = load_encoder(name, runtime="torch", precision="fp32", device="cpu")
    given = pixels(wanted, 3)
    vectors = wanted.encode_images(given)
    monkeypatch.setattr(Siglip2VisionEmbeddings, "resize_positional_embeddings", staticmethod(one_by_one))
    with pytest.warns(TowerWarning, match=r"cannot be exported: .*; torch computes it"):
        found = load_encoder(name, runtime="onnx", precision="fp32").encode_images(given)
    assert (found * vectors).sum(1).min() > 0.99


def test_a_layer_without_a_form_in_onnx_is_named(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from brivl_search.encoders.brivl.heads import TowerHead

    def strange(self: Any, pooled: Any) -> Any:
        return torch.special.bessel_j0(self.fc1(pooled))

    monkeypatch.setattr(TowerHead, "_first_layer", strange)
    encoder: Any = load_encoder(str(tiny_checkpoint), runtime="onnx", precision="fp32")
    with pytest.warns(TowerWarning, match=r"cannot be exported: head.*bessel_j0.*; torch computes it"):
        encoder.encode_images(pixels(encoder))


def test_a_refused_export_is_not_tried_again_by_auto(clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fail(given: make.Order) -> Any:
        tried.append(given.side)
        raise order.UnexportableError("no such layer")

    monkeypatch.setattr(order, "in_own_process", fail)
    monkeypatch.setattr(exports, "choose", lambda *rest: Choice("onnx", "fp32"))
    for _ in range(2):
        encoder: Any = load_encoder(clip)
        with pytest.warns(TowerWarning, match="no such layer; torch computes it"):
            encoder.expect(exports.WORTH)
    assert tried == ["image", "text"]
    with pytest.warns(TowerWarning, match="no such layer"):
        load_encoder(clip, runtime="onnx").encode_texts("x")
    assert tried == ["image", "text", "text"]


@pytest.mark.parametrize("ended", [(-9, "", ""), (0, '{"error": "No space left on device"}', "")])
def test_an_export_that_was_killed_or_had_no_place_is_tried_again(
    clip: str, monkeypatch: pytest.MonkeyPatch, ended: tuple[int, str, str]
) -> None:
    tried = []

    def run(command: list[str], **options: Any) -> Any:
        tried.append(json.loads(options["input"])["side"])
        return subprocess.CompletedProcess(command, *ended)

    monkeypatch.setattr(order, "in_own_process", IN_OWN_PROCESS)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(exports, "choose", lambda *rest: Choice("onnx", "fp32"))
    for _ in range(2):
        encoder: Any = load_encoder(clip)
        with pytest.warns(TowerWarning, match="ended with -9|No space left"):
            encoder.expect(exports.WORTH)
    assert tried == ["image", "text"] * 2


def test_what_makes_an_export_says_whether_a_second_try_would_help(
    clip: str, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder: Any = load_encoder(clip)
    asked = json.dumps(asdict(make.Order(clip, encoder.fingerprint, "text", "onnx", "fp32")))
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/cache/x")
    for error, lasts in ((full, False), (MemoryError(), False), (EncoderError("no layer"), True), (KeyError(1), True)):

        def fill(*rest: object, error: Exception = error) -> Any:
            raise error

        monkeypatch.setattr(make, "_fill", fill)
        monkeypatch.setattr(sys, "stdin", io.StringIO(asked))
        make.main()
        said = json.loads(capsys.readouterr().out)
        assert said["error"] and bool(said.get("lasts")) == lasts
    assert list(cache.iterdir()) == []  # nothing half is left


def test_auto_exports_only_for_many_pictures(clip: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "choose", lambda *rest: Choice("onnx", "fp32"))
    encoder: Any = load_encoder(clip)
    encoder.expect(exports.WORTH - 1)
    encoder.encode_images(pixels(encoder))
    encoder.encode_texts("a dog")
    assert not cache.exists()
    with pytest.warns(TowerWarning):
        encoder.expect(exports.WORTH)
    assert len(list(cache.iterdir())) == 2 and encoder.exports.tower("image") is not None


def test_texts_of_our_checkpoints_stay_with_numpy_and_torch(tiny_checkpoint: Path) -> None:
    encoder: Any = load_encoder(str(tiny_checkpoint))
    assert encoder.exports.choice("text").runtime == "torch"


def test_int8_is_another_encoder_where_it_changes_vectors(clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch, ours = both(clip, precision="int8")
    facts = ours.exports.tower("image").facts
    assert 0.9 < facts.cosine < SAFE
    assert ours.name == f"{torch.name}+precision=int8" and ours.fingerprint != torch.fingerprint
    images = pixels(torch)
    assert (ours.encode_images(images) * torch.encode_images(images)).sum(1).min() > 0.98
    monkeypatch.setattr(order, "in_own_process", lambda given: pytest.fail("needs no export to be known"))
    by_name = load_encoder(ours.name)
    assert (by_name.name, by_name.fingerprint) == (ours.name, ours.fingerprint)
    np.testing.assert_array_equal(by_name.encode_images(images), ours.encode_images(images))
    with pytest.raises(UsageError, match="is of int8: leave out `precision` fp32"):
        load_encoder(ours.name, precision="fp32")


def test_int8_that_keeps_vectors_is_the_same_encoder(clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.Facts, "same", True)
    torch, ours = both(clip, precision="int8")
    assert (ours.name, ours.fingerprint) == (torch.name, torch.fingerprint)


@pytest.mark.parametrize("keeps", [True, False])
def test_texts_are_in_int8_only_where_their_vectors_stay(
    clip: str, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checked when it is exported. What does not stay is dropped, told once, and not tried again."""
    torch = load_encoder(clip, runtime="torch", precision="fp32", device="cpu")
    monkeypatch.setattr(store.Facts, "same", property(lambda facts: keeps or facts.cosine > 0.9999))
    folder = store.place(torch.fingerprint, "text", Choice("onnx", "int8"))
    for turn in range(2):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            tower = load_encoder(clip, runtime="onnx", precision="int8").exports.tower("text")  # type: ignore[attr-defined]
        lines = [str(one.message) for one in told if "would change its text vectors" in str(one.message)]
        assert len(lines) == (0 if keeps or turn else 1)
        assert tower.folder.name.split("-")[-2] == ("int8" if keeps else "fp32") and folder.exists() == keeps
        got = tower.texts(load_encoder(clip, runtime="onnx").tokenized(["a dog on grass"]))  # type: ignore[attr-defined]
        assert (got @ torch.encode_texts("a dog on grass")[0])[0] / np.linalg.norm(got) > 0.97
    told_later = measured.describe(torch.fingerprint)
    assert ("texts in int8 keep their vectors (cosine 0.9" if keeps else "texts stay in float32: ONNX") in told_later


def test_what_was_measured_counts_for_the_vectors_it_was_measured_of(
    clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calibrations and hub corrections by one rule: an export that keeps the vectors has them, int8 its own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    plain = load_encoder(clip, runtime="torch")
    int8 = load_encoder(f"{clip}+precision=int8")
    calibration.save(plain.fingerprint, {"slope": 5.0, "intercept": -1.0})
    hub_corrections.save(plain.fingerprint, HubCorrection(np.eye(plain.dim, dtype=np.float16), 0.5, 1))

    def kept(name: str, **options: Any) -> tuple[bool, bool]:
        encoder = load_encoder(name, **options)
        return encoder.calibration is not None, hub_corrections.saved(encoder.fingerprint) is not None

    assert kept(clip, runtime="torch") == kept(clip, runtime="onnx") == (True, True)
    assert kept(int8.name) == (False, False)
    calibration.save(int8.fingerprint, {"slope": 6.0, "intercept": -1.0})
    hub_corrections.save(int8.fingerprint, HubCorrection(np.eye(plain.dim, dtype=np.float16), 0.25, 1))
    assert kept(int8.name) == (True, True)
    assert load_encoder(int8.name).calibration == Calibration(6, -1) != load_encoder(clip).calibration
    assert calibration.path_of("a").parent == hub_corrections.path_of("a").parent


def test_an_encoder_of_int8_gives_no_other_vectors(clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(given: make.Order) -> Any:
        raise EncoderError("no such layer")

    monkeypatch.setattr(order, "in_own_process", fail)
    encoder = load_encoder(f"{clip}+precision=int8")
    with pytest.warns(TowerWarning), pytest.raises(EncoderError, match="no such layer"):
        encoder.encode_images(pixels(encoder))


def test_a_changed_encoder_is_not_exported_under_the_old_fingerprint(clip: str) -> None:
    given = make.Order(clip, "hf-of-before", "image", "onnx", "fp32")
    with pytest.raises(EncoderError, match="has changed since it was loaded"):
        make.make(given)
    assert store.read(given.place) is None


def test_a_query_by_exports_imports_neither_torch_nor_transformers(
    clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every family: the exports are made here, and used by a process of their own."""
    pytest.importorskip("open_clip")
    from tests.support.tiny_immich import make_immich
    from tests.support.tiny_open_clip import make_open_clip

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hf = [f"hf:{make_hf(tmp_path / kind, kind)}" for kind in ("chinese_clip", "siglip")]
    other = make_open_clip(tmp_path / "xlm_roberta", "xlm_roberta")
    names = [clip, *hf, f"open_clip:{other}", f"hf:{other}", f"hf:{make_immich(tmp_path / 'immich', other)}"]
    load_encoder(clip, runtime="onnx").encode_images(np.zeros((1, 32, 32, 3), np.uint8))
    wanted = []
    for name in names:
        encoder: Any = load_encoder(name) if "immich" in name else load_encoder(name, runtime="onnx")
        wanted.append(float(encoder.encode_texts("a dog")[0, 0]))
    program = (
        "import sys\n"
        "from brivl_search.encoders import load_encoder\n"
        "import numpy as np\n"
        "for name in sys.argv[1:]:\n"
        "    e = load_encoder(name)\n"  # `auto` uses what is there
        "    v = e.encode_queries('a dog')\n"
        "    if name == sys.argv[1]:\n"
        "        load_encoder(name, runtime='onnx').encode_images(np.zeros((2, 32, 32, 3), np.uint8))\n"
        "    e.cut_tokens('a dog'), e.unknown_words('a dog'), e.spelled(['a dog'])\n"
        "    heavy = {'torch', 'transformers', 'timm', 'open_clip', 'sklearn', 'pandas'} & set(sys.modules)\n"
        "    print(float(v[0, 0]), *sorted(heavy))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *names],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": ""},
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [len(line) for line in lines] == [1] * len(names), done.stdout + done.stderr
    assert [float(first) for first, *_ in lines] == pytest.approx(wanted, abs=1e-5)
