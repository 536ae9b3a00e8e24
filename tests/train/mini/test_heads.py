"""The third round on drawn pictures: what is kept, cached maps, losses, and heads that learn beside a classifier."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from brivl_search.encoders import load_encoder
from brivl_search.encoders.brivl.checkpoint import FolderCheckpoint
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.brivl.text_tower import TextTower
from tests.support.pictures import COLOURS, SHAPES, draw
from train.mini import between, heads, hubness, maps, progress
from train.mini.head_recipe import HeadsRecipe, Labelled
from train.mini.labelled import Language, Name, all_names, names_of, read_pictures
from train.mini.lessons import NameVectors, by_name, caption_loss, label_loss, teacher_loss
from train.mini.tokens import LastLayers, Texts, cached_tokens
from train.recipe import read_recipe

COLOUR, SHAPE = ("red", "green", "blue"), ("circle", "square", "cross")


def write_world(folder: Path, checkpoint: Path, **train: object) -> Path:
    """A recipe over 12 captioned and 36 labelled pictures of 9 kinds; a classifier of 3 classes."""
    things = [(colour, shape) for colour in COLOUR for shape in SHAPE]
    for name, count in (("told", 12), ("named", 36)):
        (folder / name).mkdir(parents=True)
        with (folder / name / "captions.jsonl").open("w", encoding="utf-8") as lines:
            for number in range(count):
                colour, shape = things[number % 9]
                draw(colour, shape, (64, 64), number).save(folder / name / f"{number}.png")
                zh, en = COLOURS[colour][0] + SHAPES[shape], f"{colour} {shape}"
                row = {"image": f"{number}.png", "zh": [f"一个{zh}"], "en": [f"a {en}"], "zh_label": zh, "en_label": en}
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    classes = [{"zh": COLOURS[c][0] + SHAPES[s], "en": f"{c} {s}"} for c, s in things[:3]]
    (folder / "classes.jsonl").write_text("\n".join(json.dumps(row) for row in classes), encoding="utf-8")
    torch.manual_seed(0)
    save_file(timm.create_model("mobilenetv2_035", num_classes=3).state_dict(), folder / "cnn.safetensors")
    settings = {"steps": 3, "batch": 6, "labelled_batch": 6, "captions_per_image": 2, "negatives": 4, "lr": 1e-3}
    settings |= {"warmup": 1, "eval_every": 3, "bf16": False, **train}
    numbers = "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
    sizes = {"vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 64, "max_position_embeddings": 16}
    inline = ", ".join(f"{key} = {value}" for key, value in sizes.items())
    backbone = f'{{ model_type = "bert", {inline} }}'
    head = "head = { layers = 1, heads = 2, feedforward = 32, dropout = 0.0 }"
    (folder / "recipe.toml").write_text(
        f"""run = {json.dumps(str(folder / "run"))}
classifiers = ["cnn.safetensors"]
names = "classes.jsonl"
[init]
checkpoint = {json.dumps(str(checkpoint))}
tokenizer = {json.dumps(str(checkpoint))}
differs = ["image.classes", "image.class_backbones"]
[model]
dim = 32
[model.image]
backbones = [{{ name = "mobilenetv2_035" }}]
grids = [2, 1]
width = 32
classes = 3
class_backbones = [0]
pixels = {{ size = 64, resize = "squash", interpolation = "bilinear" }}
{head}
[model.text]
max_length = 16
{head}
backbone = {backbone}
[kinds.thing]
zh = ["{{}}", "一张{{}}的照片。"]
en = ["{{}}", "a photo of a {{}}"]
[[data]]
folder = "told"
captions = {{ zh = 0.5, en = 0.5 }}
hold_out_last = 4
views = 2
[[labelled]]
folder = "named"
kind = "thing"
views = 2
hold_photos = 0.3
hold_classes = 0.4
[train]
{numbers}
""",
        encoding="utf-8",
    )
    return folder / "recipe.toml"


def read(recipe: Path) -> HeadsRecipe:
    return read_recipe(recipe, [], HeadsRecipe)


def test_what_is_kept_is_never_trained_on(tmp_path: Path, tiny_checkpoint: Path) -> None:
    recipe = read(write_world(tmp_path, tiny_checkpoint))
    pictures = read_pictures(recipe, tmp_path)
    assert [p.kept for p in pictures[:12]] == [""] * 8 + ["photo"] * 4
    named = pictures[12:]
    kept_classes = {p.names for p in named if p.kept == "class"}
    assert kept_classes and all(p.kept == "class" for p in named if p.names in kept_classes)
    others = {p.names for p in named} - kept_classes
    assert all(sum(p.kept == "photo" for p in named if p.names == names) == 1 for names in others)  # of four
    assert all(p.views == (1 if p.kept else 2) for p in pictures)
    assert pictures == read_pictures(recipe, tmp_path)


def test_two_names_of_a_picture() -> None:
    table = Labelled(folder=".", kind="thing")
    assert names_of({"zh_label": "猫、人", "en_label": "cat, person"}, table) == (
        Name("猫", "cat"),
        Name("人", "person"),
    )
    assert names_of({"zh_label": "猫", "en_label": "cat, asleep"}, table) == (Name("猫", "cat, asleep"),)


def test_a_map_in_one_byte_a_number() -> None:
    torch.manual_seed(0)
    given = [torch.relu(torch.randn(3, 8, 4, 4)) * 5, torch.zeros(3, 8, 4, 4)]
    kept, highest = maps.squeeze(given)
    back = maps.unsqueeze(torch.from_numpy(kept), torch.from_numpy(highest))
    assert kept.dtype == np.uint8 and kept.shape == (3, 16, 4, 4)
    assert (back[0] - given[0]).abs().max() < 0.01 * given[0].max() and not back[1].any()


def test_caption_loss_is_info_nce_without_own_captions() -> None:
    torch.manual_seed(0)
    pictures, captions, others, past = (F.normalize(torch.randn(n, 8), dim=1) for n in (3, 6, 4, 2))
    owners = torch.tensor([7, 8, 7])  # the third is the first picture again
    found = caption_loss(pictures, captions, others, past, owners, 0.1)
    picture_of, to_text, to_image = [0, 0, 1, 1, 2, 2], [], []
    for caption, picture in enumerate(picture_of):
        right = (pictures[picture] @ captions[caption] / 0.1).exp()
        wrong = [captions[c] for c in range(6) if owners[picture_of[c]] != owners[picture]] + [*others]
        to_text.append(-(right / (right + sum((pictures[picture] @ w / 0.1).exp() for w in wrong))).log())
        wrong = [pictures[p] for p in range(3) if owners[p] != owners[picture]] + [*past]
        to_image.append(-(right / (right + sum((captions[caption] @ w / 0.1).exp() for w in wrong))).log())
    torch.testing.assert_close(found, torch.stack(to_text).mean() + torch.stack(to_image).mean())


def test_label_loss_of_several_names_and_of_a_lone_one() -> None:
    scores = torch.tensor([[2.0, 1.0, 0.0], [5.0, 0.0, 0.0]], requires_grad=True)
    shown = torch.tensor([[True, True, False], [True, False, False]])
    among = torch.tensor([[True, True, True], [True, False, False]])
    first = (np.log(np.exp(2) / (np.exp(2) + 1)) + np.log(np.exp(1) / (np.exp(1) + 1))) / 2
    loss = label_loss(scores, shown, among)
    assert float(loss.detach()) == pytest.approx(-first / 2, abs=1e-5)  # the second has nothing to be told from
    loss.backward()
    assert scores.grad is not None and scores.grad.isfinite().all() and not scores.grad[1].any()


def test_teacher_loss_is_zero_for_the_teacher_itself() -> None:
    scores = torch.tensor([[1.0, 3.0, -2.0]])
    assert float(teacher_loss(scores, scores.softmax(1))) == pytest.approx(0, abs=1e-6)
    assert float(teacher_loss(scores, torch.tensor([[1.0, 0.0, 0.0]]))) > 1
    assert (torch.tensor([[0.5, 0.2, 0.3]]) @ by_name([1, 0, 1], 2)).tolist() == [pytest.approx([0.2, 0.8])]


def test_name_vectors_are_those_of_classify(tmp_path: Path, tiny_checkpoint: Path) -> None:
    from brivl_search.embedding.zero_shot import class_vectors

    recipe = read(write_world(tmp_path, tiny_checkpoint))
    names, encoder = all_names(read_pictures(recipe, tmp_path)), BriVLEncoder(tiny_checkpoint)
    vectors = NameVectors(names, recipe.kinds)
    vectors.fill(torch.from_numpy(encoder.encode_texts(vectors.texts)))
    languages: tuple[Language, ...] = ("zh", "en")
    for language in languages:
        expected = class_vectors(encoder, [[getattr(name, language)] for name in names.names])
        np.testing.assert_allclose(vectors.mean(language).numpy(), expected, atol=1e-5)
        for seed in range(4):
            table, rows = vectors.drawn(language, np.random.default_rng(seed))
            assert table.shape == expected.shape and (rows is None or len(rows) == len(names.names))


def test_last_layers_learn_on_kept_tokens(tmp_path: Path, tiny_checkpoint: Path) -> None:
    texts = ["一只狗在草地上", "a dog", "红色圆形 and a blue square", "a dog on grass"]
    tokens = cached_tokens(FolderCheckpoint(tiny_checkpoint), texts, 1, tmp_path, bf16=False)
    tower = TextTower(FolderCheckpoint(tiny_checkpoint).config.text, 32)
    FolderCheckpoint(tiny_checkpoint).fill("text", tower)
    last = LastLayers(tower.eval(), 1)
    expected = BriVLEncoder(tiny_checkpoint, precision="fp32").encode_texts(texts)
    np.testing.assert_allclose(last.embed(tokens, range(4)), expected, atol=2e-3)
    known = Texts(tokens, last, expected.copy(), learns=True)
    with torch.no_grad():
        last.head.fc2.weight.mul_(torch.rand(32, 1) + 0.5)
    found = known.vectors([2, 0])
    found.sum().backward()
    assert tower.backbone.encoder.layer[0].output.dense.weight.grad is not None
    np.testing.assert_allclose(known.bank[[2, 0]].numpy(), found.detach().numpy())
    assert np.abs(known.bank[0].numpy() - expected[0]).max() > 1e-3
    np.testing.assert_array_equal(known.bank[1].numpy(), expected[1])  # not asked for


@pytest.mark.parametrize("learns", [False, True])
def test_heads_learn_and_the_checkpoint_loads(
    learns: bool, tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"text_lr_factor": 1.0, "text_weight": 0.5} if learns else {}
    path = write_world(tmp_path, tiny_checkpoint, steps=6, eval_every=3, **more)
    with pytest.raises(SystemExit, match=r"train\.mini\.maps"):
        heads.main([str(path)])
    maps.main([str(path)])
    before = sorted((file.name, file.stat().st_mtime_ns) for file in (tmp_path / "run").glob("maps*.npy"))
    maps.main([str(path)])  # nothing is made twice
    assert before == sorted((file.name, file.stat().st_mtime_ns) for file in (tmp_path / "run").glob("maps*.npy"))
    heads.main([str(path)])
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 3, 6] and any("mixed" in k or "objects" in k for k in lines[-1])
    old, new = load_encoder(str(tiny_checkpoint)), load_encoder(str(tmp_path / "run" / "checkpoint"))
    assert old.fingerprint != new.fingerprint
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    vectors = new.encode_images(pixels)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    assert np.abs(vectors - old.encode_images(pixels)).max() > 0.01
    texts = ["一个红色圆形", "a red circle"]
    moved = np.abs(new.encode_texts(texts) - old.encode_texts(texts)).max()
    assert moved > 1e-3 if learns else moved < 1e-3  # float16 of the same
    last = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    heads.main(
        [
            str(path),
            "--set",
            "go_on=run/checkpoint",
            "--set",
            f'run="{tmp_path / "more"}"',
            "--set",
            "train.steps=1",
            "--set",
            f'cache="{tmp_path / "run"}"',
        ]
    )
    first = json.loads((tmp_path / "more" / "log.jsonl").read_text().splitlines()[0])
    figures = [key for key in first if key != "step"]
    assert figures and {key: first[key] for key in figures} == {key: last[key] for key in figures}
    capsys.readouterr()
    if not learns:
        ends = [str(tmp_path / "run" / name) for name in ("start", "checkpoint")]
        between.main([str(path), *ends, "--shares", "0,1"])
        shown = capsys.readouterr().out.split("share ")[1:]
        assert len(shown) == 2 and all(value in shown[1] for key, value in last.items() if key.startswith("told"))
        hubness.main([str(path), str(tmp_path / "run" / "checkpoint"), "--captions", "20", "--photos", "20"])
        hubs = FolderCheckpoint(tmp_path / "run" / "checkpoint").hubness
        assert hubs is not None and hubs.of_images.shares.sum() == pytest.approx(1)
    progress.main([str(path), str(tmp_path / "run" / "checkpoint")])
    assert "named class" in capsys.readouterr().out


def test_what_was_said_of_captioned_photos_holds_the_heads(tmp_path: Path, tiny_checkpoint: Path) -> None:
    path = write_world(tmp_path, tiny_checkpoint, steps=12, eval_every=12, lr=1e-2, average=0.0, label_weight=2.0)
    maps.main([str(path)])
    pixels = np.stack([np.asarray(draw("red", "circle", (64, 64), n)) for n in range(3)])
    was, near = load_encoder(str(tiny_checkpoint)).encode_images(pixels), []
    for weight in (0.0, 50.0):
        run = tmp_path / f"kept-{weight:g}"
        changes = [f'run="{run}"', f'cache="{tmp_path / "run"}"', f"train.keep_weight={weight}"]
        heads.main([str(path), *(part for change in changes for part in ("--set", change))])
        near.append((load_encoder(str(run / "checkpoint")).encode_images(pixels) * was).sum(1).mean())
    assert near[1] > near[0] + 0.1 and near[1] > 0.8


def test_labelled_photos_hold_the_heads_too(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """`keep_named` adds so much of the labelled photos' own 1 − cosine to what is kept, and 0 adds none."""
    path = write_world(tmp_path, tiny_checkpoint, keep_weight=3.0)
    maps.main([str(path)])
    recipe = read(path)
    lessons = heads.read_lessons(recipe, tmp_path, bf16=False)
    zh, en = (lessons.names.mean(language) for language in heads.LANGUAGES)
    known = heads.known_tower(recipe, tmp_path)
    tower = heads.start(recipe, tmp_path, lessons.classes @ F.normalize(zh + en, dim=1), known).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.mul_(1 + 0.3 * torch.randn_like(parameter))
    kept = {}
    for share in (0.0, 1.0, 2.0):
        cfg = recipe.train.model_copy(update={"keep_named": share})
        teaching = heads.Teaching(lessons, tower, known, cfg, bf16=False)
        teaching.loss(0)
        kept[share] = teaching.parts["kept"]
    rng = np.random.default_rng((cfg.seed, 2, 0))
    told = lessons.draw(lessons.captioned, cfg.batch, 0, (cfg.seed, 0))
    named = lessons.draw(lessons.labelled, cfg.labelled_batch, 0, (cfg.seed, 1))
    seen = lessons.views(np.concatenate([told, named]), cfg, rng)
    with torch.no_grad():
        moved = (1 - (tower.embed_members(seen) * known.embed(seen)).sum(2)).mean(0)
    first, second = float(moved[: len(told)].mean()), float(moved[len(told) :].mean())
    assert second > 0.01
    expected = {share: 3 * (first + share * second) for share in kept}
    assert kept == pytest.approx(expected, rel=1e-4)
