"""Any encoder is trained on: what learns and what does not, LoRA, averages with the start, what is written."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from brivl_search.corpus.images import load_pixels
from brivl_search.encoders import load_encoder
from brivl_search.encoders.brivl.checkpoint import load_tower, read_config, write_hubness
from brivl_search.errors import TowerWarning, UsageError
from tests.support.official import tiny_fixture, tiny_official  # noqa: F401 - a fixture
from tests.support.recipes import training
from tests.support.tiny import make_checkpoint
from tests.support.tiny_hf import TEXTS, make_hf
from tests.support.tiny_hf import photos as pictures
from tests.support.tiny_open_clip import make_open_clip
from tests.train.test_pretrain import photos, to_toml  # noqa: F401 - a fixture
from tests.train.test_run import broken_after
from train import pretrain
from train.mini.hubness import fit_hubs
from train.model.build import parameter_groups
from train.model.depth import depths
from train.model.kinds.base import Kind
from train.model.kinds.load import load_kind
from train.model.moco import Clip
from train.recipe import read_recipe
from train.run.average import Tried, averaged, choose, weights_of

MODELS = ["hf:clip", "hf:chinese_clip", "hf:siglip", "open_clip:vit", "open_clip:resnet", "open_clip:xlm_roberta"]
ADAPTED = [name for name in MODELS if name != "open_clip:resnet"]
MOCO = {"loss": "moco", "queue_size": 24}
QUICK = {"steps": 6, "batch": 12, "lr": 1e-3, "warmup": 2, "eval_every": 3, "crop_scale": 0.8, "loss": "clip"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What `init.encoder` calls tiny models of both libraries."""
    folder = tmp_path_factory.mktemp("models")
    made = {}
    for name in MODELS:
        library, _, kind = name.partition(":")
        make = make_hf if library == "hf" else make_open_clip
        made[name] = f"{library}:{make(folder / name.replace(':', '-'), kind)}"
    return made


def write(folder: Path, encoder: str, photos: Path, **train: object) -> Path:  # noqa: F811
    folder.mkdir(exist_ok=True)
    settings = {**QUICK, "workers": 0, "bf16": False, "device": "cpu", "seed": 3, **train}
    data = [{"folder": str(photos), "captions": {"en": 1.0}, "hold_out_last": 27}]
    table = {"run": str(folder / "run"), "init": {"encoder": encoder}, "train": settings, "data": data}
    (folder / "recipe.toml").write_text(to_toml(table), encoding="utf-8")
    return folder / "recipe.toml"


def kind_of(folder: Path, encoder: str, **train: object) -> Kind:
    path = write(folder, encoder, folder, **train)
    return load_kind(read_recipe(path, []), folder, torch.device("cpu"))


def vectors(kind: Kind, towers: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """What towers say of the pictures and texts that the encoders' tests embed."""
    towers.eval()
    pixels = torch.from_numpy(np.stack([load_pixels(one, kind.pixels) for one in pictures()]))
    ids, mask = (torch.from_numpy(a) for a in kind.tokenizer.batch(kind.tokenizer.ids(TEXTS)))
    with torch.no_grad():
        return towers.embed_images(pixels).numpy(), towers.embed_texts(ids, mask).numpy()  # type: ignore[operator]


def a_step(kind: Kind, lr: float = 0.5) -> None:
    """One large step of all that learns."""
    kind.towers.train()
    pixels = torch.from_numpy(np.stack([load_pixels(one, kind.pixels) for one in pictures()[:4]]))
    ids, mask = (torch.from_numpy(a) for a in kind.tokenizer.batch(kind.tokenizer.ids(TEXTS)))
    learning = [p for p in kind.towers.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=lr)
    Clip(kind.towers)(pixels, ids, mask, torch.arange(4)).backward()
    optimizer.step()


def told(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "run" / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", MODELS)
def test_the_start_is_the_encoder(tmp_path: Path, models: dict[str, str], name: str) -> None:
    kind, encoder = kind_of(tmp_path, models[name]), load_encoder(models[name], device="cpu", precision="fp32")
    images, texts = vectors(kind, kind.towers)
    np.testing.assert_allclose(images, encoder.encode_images(pictures()), atol=1e-5)
    np.testing.assert_allclose(texts, encoder.encode_texts(TEXTS), atol=1e-5)


def test_an_encoder_that_was_exported_is_trained_as_any_other(
    tmp_path: Path, models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    from brivl_search.encoders.runtimes import make, order

    monkeypatch.setenv("BRIVL_SEARCH_EXPORTS", str(tmp_path / "exports"))
    monkeypatch.setattr(order, "in_own_process", make.make)
    with pytest.warns(TowerWarning, match="is exported"):
        wanted = load_encoder(models["hf:clip"], runtime="onnx", precision="fp32").encode_texts(TEXTS)
    kind = kind_of(tmp_path, models["hf:clip"])
    np.testing.assert_allclose(vectors(kind, kind.towers)[1], wanted, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_reach_what_should_learn_and_nothing_else(tmp_path: Path, models: dict[str, str], name: str) -> None:
    kind = kind_of(tmp_path, models[name], frozen_image_layers=1, frozen_text_layers=1)
    before = {key: value.clone() for key, value in kind.towers.state_dict().items()}
    a_step(kind)
    places = {side: depths(getattr(kind.towers, side).model) for side in ("image", "text")}
    moved = {key for key, value in kind.towers.state_dict().items() if not torch.equal(value, before[key])}
    for key, parameter in kind.towers.named_parameters():
        side, _, inner = key.partition(".model.")
        place = places[side].place[inner]
        unused = "logit_" in inner or (side == "image" and inner.startswith("text_"))
        unused |= name.startswith("hf:") and side == "text" and inner.startswith("visual_")
        assert (parameter.grad is not None) == (place > 1 and not unused), key
    assert moved and all(places[k.partition(".model.")[0]].place[k.partition(".model.")[2]] > 1 for k in moved)


@pytest.mark.parametrize("name", ADAPTED)
def test_lora_learns_alone_and_merges_into_the_same_vectors(tmp_path: Path, models: dict[str, str], name: str) -> None:
    kind = kind_of(tmp_path, models[name], lora_rank=2, frozen_text_layers=1)
    first = vectors(kind, kind.towers)
    a_step(kind), a_step(kind)  # after one step A has no gradient yet: B was zero
    learning = {key for key, p in kind.towers.named_parameters() if p.requires_grad}
    assert learning and all("lora_" in key for key in learning)
    assert {key for key, p in kind.towers.named_parameters() if p.grad is not None} == learning
    now = vectors(kind, kind.towers)
    assert min(np.abs(a - b).max() for a, b in zip(first, now, strict=True)) > 1e-3
    kind.save(tmp_path / "out", kind.towers, {"step": 1})
    encoder = load_encoder(f"{name.partition(':')[0]}:{tmp_path / 'out'}", device="cpu", precision="fp32")
    np.testing.assert_allclose(encoder.encode_images(pictures()), now[0], atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), now[1], atol=1e-5)
    np.testing.assert_allclose(vectors(kind, kind.towers)[1], now[1], atol=1e-6)  # saving changes nothing


@pytest.mark.parametrize("name", ["hf:clip", "open_clip:vit"])
def test_shares_between_the_start_and_what_was_learnt(tmp_path: Path, models: dict[str, str], name: str) -> None:
    for lora in (0, 2):
        kind = kind_of(tmp_path, models[name], lora_rank=lora)
        start, first = weights_of(kind.towers), vectors(kind, kind.towers)
        for _ in range(3):
            a_step(kind)
        end = vectors(kind, kind.towers)
        for share, wanted in ((0.0, first), (1.0, end)):
            found = vectors(kind, averaged(kind.towers, start, share))
            np.testing.assert_allclose(found[0], wanted[0], atol=1e-5)
            np.testing.assert_allclose(found[1], wanted[1], atol=1e-5)
        half = averaged(kind.towers, start, 0.5)
        key = next(iter(start))
        middle = (start[key] + dict(kind.towers.named_parameters())[key].detach()) / 2
        torch.testing.assert_close(dict(half.named_parameters())[key].detach(), middle)
        assert not np.allclose(vectors(kind, half)[0], end[0], atol=1e-4)


def test_the_share_0_is_the_start_with_its_batchnorms_and_1_all_that_was_learnt(tmp_path: Path) -> None:
    table = {"run": "run", "init": {"encoder": str(make_checkpoint(tmp_path / "start"))}, "data": [{"folder": "."}]}
    table |= {"model": {"image": {"freeze_bn": False}}, "train": {**QUICK, "device": "cpu"}}
    (tmp_path / "recipe.toml").write_text(to_toml(table), encoding="utf-8")
    kind = load_kind(read_recipe(tmp_path / "recipe.toml", []), tmp_path, torch.device("cpu"))
    start, first = weights_of(kind.towers), copy.deepcopy(kind.towers.state_dict())
    a_step(kind)
    end = kind.towers.state_dict()
    assert any("running_mean" in key and not torch.equal(end[key], first[key]) for key in end)
    for share, wanted in ((0.0, first), (1.0, end)):
        found = averaged(kind.towers, start, share).state_dict()
        assert [key for key in wanted if "num_batches" not in key and not torch.equal(found[key], wanted[key])] == []


def test_momentum_towers_with_a_start_of_their_own_go_back_to_it(tmp_path: Path, models: dict[str, str]) -> None:
    kind = kind_of(tmp_path, models["hf:clip"])
    slow = copy.deepcopy(kind.towers).requires_grad_(False)
    for parameter in slow.parameters():
        parameter.mul_(0.9)  # as a published file's momentum copies differ from its towers
    first, start = vectors(kind, slow), weights_of(slow, kind.towers)
    for parameter in slow.parameters():
        parameter.mul_(1.2)
    found = vectors(kind, averaged(slow, start, 0.0))
    assert np.array_equal(found[0], first[0]) and np.array_equal(found[1], first[1])


def test_the_smallest_share_near_the_best_is_chosen() -> None:
    def tried(**scores: float) -> list[Tried]:
        return [Tried(float(key[1:]) / 10, {}, {}, score) for key, score in scores.items()]

    assert choose(tried(s0=50, s4=60, s7=62, s10=61), 0.0).share == 0.7
    assert choose(tried(s0=50, s4=60, s7=62, s10=61), 2.0).share == 0.4
    assert choose(tried(s0=50, s4=62, s7=62, s10=61), 0.0).share == 0.4
    assert choose(tried(s0=61, s4=60, s7=62, s10=61), 5.0).share == 0.7  # the others are no better than the start
    assert choose(tried(s0=65, s4=60, s7=62, s10=61), 5.0).share == 0.0


def test_lower_layers_learn_more_slowly(tmp_path: Path, models: dict[str, str]) -> None:
    kind = kind_of(tmp_path, models["hf:clip"])
    groups = parameter_groups(kind.towers, training(layer_decay=0.5, lr=1.0))
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    found = {name: rate[id(p)] for name, p in kind.towers.named_parameters() if p.requires_grad}
    start = "image.model.vision_model."
    assert found[f"{start}embeddings.position_embedding.weight"] == 0.125
    assert found[f"{start}encoder.layers.0.mlp.fc1.weight"] == 0.25
    assert found[f"{start}encoder.layers.1.mlp.fc1.weight"] == 0.5
    assert found["image.model.visual_projection.weight"] == found[f"{start}post_layernorm.weight"] == 1.0


@pytest.mark.parametrize(
    ("name", "train"),
    [
        ("hf:chinese_clip", {"loss": "moco", "queue_size": 24, "momentum": 0.5}),
        ("open_clip:vit", {"lora_rank": 4, "lr": 5e-3}),
    ],
)
@pytest.mark.slow
def test_a_tiny_run_beats_its_start_and_is_exported(
    tmp_path: Path,
    models: dict[str, str],
    photos: Path,  # noqa: F811
    name: str,
    train: dict,
) -> None:
    recipe = write(tmp_path, models[name], photos, steps=40, eval_every=20, average=[0.5], batch=24, **train)
    pretrain.main([str(recipe)])
    lines = told(tmp_path)
    first, last = lines[0], lines[-1]
    assert first["step"] == 0 and first["general"] and last["step"] == 40
    assert [one["share"] for one in last["shares"]] == [0.0, 0.5, 1.0]
    assert all(one["general"] for one in last["shares"])
    assert last["shares"][0]["recall"] == first["recall"]  # a share of nothing is the start
    scores = {one["share"]: one["score"] for one in last["shares"]}
    assert last["kept"]["score"] > scores[0.0] + 5
    pretrain.main([str(recipe), "--export", str(tmp_path / "out")])
    encoder = load_encoder(f"{name.partition(':')[0]}:{tmp_path / 'out'}", device="cpu", precision="fp32")
    facts = json.loads((tmp_path / "out" / "training.json").read_text())
    assert facts["recipe"]["init"]["encoder"] == models[name] and facts["val"]
    assert encoder.encode_texts(["a red circle"]).shape == (1, encoder.dim)


@pytest.mark.parametrize(("name", "rank"), [("hf:clip", 2), ("open_clip:vit", 2), ("hf:siglip", 0)])
def test_a_stopped_run_goes_on_as_an_unbroken_one(
    tmp_path: Path,
    models: dict[str, str],
    photos: Path,  # noqa: F811
    name: str,
    rank: int,
) -> None:
    whole, parts = (
        write(tmp_path / part, models[name], photos, lora_rank=rank, eval_every=2, average=[0.5], **MOCO)
        for part in ("a", "b")
    )
    pretrain.main([str(whole)])
    pretrain.main([str(parts), "--stop-after", "2"])
    pretrain.main([str(parts), "--stop-after", "4"])
    pretrain.main([str(parts)])
    a, b = told(tmp_path / "a"), told(tmp_path / "b")
    losses = [[line["loss"] for line in lines if "loss" in line] for lines in (a, b)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and len(losses[0]) == 3
    assert a[-1]["kept"] == pytest.approx(b[-1]["kept"])
    assert a[-1]["shares"][1]["recall"] == b[-1]["shares"][1]["recall"]
    pretrain.main([str(parts)])  # a run that has ended stays as it is
    assert told(tmp_path / "b") == b


def test_nan_leads_back_to_the_last_good_state(
    tmp_path: Path, models: dict[str, str], photos: Path, monkeypatch: pytest.MonkeyPatch,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    recipe = write(tmp_path, models["hf:clip"], photos, lora_rank=2)
    broken_after(monkeypatch, 5, lr=5e-4)
    with pytest.raises(SystemExit, match=r"^1$"):
        pretrain.main([str(recipe)])
    assert "it goes on from step 3" in capsys.readouterr().err
    pretrain.main([str(recipe), "--set", "train.lr=1e-4"])
    assert "goes on from step 3 of 6" in capsys.readouterr().out
    assert told(tmp_path)[-1]["step"] == 6


def test_a_correction_of_hubs_is_measured_and_kept(tmp_path: Path, photos: Path) -> None:  # noqa: F811
    checkpoint = make_checkpoint(tmp_path / "start")
    rng = np.random.default_rng(0)
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in rng.normal(size=(2, 40, 32)).astype(np.float32)]
    write_hubness(checkpoint, fit_hubs(*unit, centroids=(8, 8), weights=(2.0, 2.0)))
    recipe = write(tmp_path, str(checkpoint), photos, lr=0.0)
    pretrain.main([str(recipe), "--stop-after", "1"])
    encoder = load_encoder(str(checkpoint), device="cpu", precision="fp32")
    kept = load_encoder(str(tmp_path / "run" / "checkpoint"), device="cpu", precision="fp32")
    assert (tmp_path / "run" / "checkpoint" / "hubs.safetensors").is_file()
    np.testing.assert_allclose(kept.encode_texts(TEXTS), encoder.encode_texts(TEXTS), atol=2e-3)
    texts = [f"{n}.jpg" for n in range(162, 189)]
    rows = [json.loads(line) for line in (photos / "captions.jsonl").read_text().splitlines()][162:]
    images = encoder.encode_images([photos / name for name in texts])
    queries = encoder.encode_texts([text for row in rows for text in row["en"]])
    first = (queries @ images.T).argmax(1) == np.repeat(np.arange(27), 2)
    assert told(tmp_path)[0]["recall"]["en"]["t2i@1"] == pytest.approx(100 * first.mean(), abs=4)


def test_published_weights_are_trained_on_with_their_momentum_copies(
    tmp_path: Path,
    tiny: tuple[Path, object],
    photos: Path,  # noqa: F811
) -> None:
    recipe = write(tmp_path, f"official:{tiny[0]}", photos, steps=2, loss="moco", queue_size=12, cnn_lr_factor=0.1)
    kind = load_kind(read_recipe(recipe, []), tmp_path, torch.device("cpu"))
    slow = copy.deepcopy(kind.towers)
    kind.fill_momentum(slow)
    assert not torch.equal(slow.image.head.fc1.weight, kind.towers.image.head.fc1.weight)
    pretrain.main([str(recipe)])
    kept = tmp_path / "run" / "checkpoint"
    assert read_config(kept).dim == tiny_official()["dim"]
    load_tower(kept, "text", kind.towers.text)


@pytest.mark.parametrize(
    ("encoder", "train", "said"),
    [
        ("brivl-mimi", {}, "no encoder 'brivl-mimi': did you mean brivl-mini?"),
        ("hf:no/such/model", {}, "no encoder hf:no/such/model"),
        ("hf:clip+precision=int8", {}, "leave out what follows the +, weights are trained in float32"),
        ("brivl-mini", {"lora_rank": 4}, "is for hf: and open_clip: models, and 'brivl-mini' is BriVL's: leave it out"),
        ("m/clip", {"lora_rank": 4}, "a model of another library is called hf:FOLDER or open_clip:FOLDER"),
        ("brivl-mini", {"frozen_image_layers": 2}, "frozen_blocks freezes blocks of its CNNs"),
        ("hf:clip", {"frozen_image_layers": 3}, "train.frozen_image_layers = 3: the image tower has 2 layers"),
        ("open_clip:vit", {"frozen_text_layers": 9}, "train.frozen_text_layers = 9: the text tower has 2 layers"),
        ("open_clip:vit", {"lora_rank": 2, "lora_dropout": 0.1}, "peft has none for the attention of the image tower"),
        ("open_clip:resnet", {"lora_rank": 2}, "the image tower has no linear layers that learn"),
        ("hf:clip", {"cached_blocks": [2]}, "train.cached_blocks is for BriVL's image tower"),
        ("hf:clip", {"frozen_towers": ["image", "text"]}, "nothing would learn"),
        ("hf:clip", {"token_dropout": 0.5}, "token_dropout needs a tokenizer with a [MASK] token"),
    ],
)
def test_what_cannot_be_trained_is_named(
    tmp_path: Path, models: dict[str, str], photos: Path, capsys: pytest.CaptureFixture[str],  # noqa: F811
    encoder: str, train: dict, said: str,
) -> None:  # fmt: skip
    recipe = write(tmp_path, models.get(encoder, encoder), photos, **train)
    with pytest.raises(SystemExit) as ended:
        pretrain.main([str(recipe)])
    error = capsys.readouterr().err + str(ended.value.code)
    assert said in error and "Traceback" not in error


def test_lora_without_peft(tmp_path: Path, models: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Exception, match=r"train.lora_rank needs peft"):
        from train.model.lora import check_installed

        check_installed()


def test_two_ways_to_name_a_start(tmp_path: Path, photos: Path) -> None:  # noqa: F811
    recipe = write(tmp_path, "hf:x", photos)
    with pytest.raises(UsageError, match="encoder names a whole model, with its tokenizer: leave `checkpoint` out"):
        read_recipe(recipe, ['init.checkpoint="brivl-mini"'])
    with pytest.raises(UsageError, match=r"\[model\] has the sizes of BriVL's towers"):
        read_recipe(recipe, ["model.dim=8"])


def test_a_copy_of_a_depthwise_convolution_uses_its_own_weights() -> None:
    from train.run.cpu import depthwise_in_float32

    net = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4))
    depthwise_in_float32(net)
    other = copy.deepcopy(net)
    with torch.no_grad():
        other[0].weight.zero_(), other[0].bias.zero_()
    assert other(torch.ones(1, 4, 5, 5)).abs().max() == 0 and net(torch.ones(1, 4, 5, 5)).abs().max() > 0
