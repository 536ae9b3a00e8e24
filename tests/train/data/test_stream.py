"""Pairs in shards: packed and read back, streamed in an order that nothing but the seed decides, and trained on."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from brivl_search.corpus.images import PixelSpec
from brivl_search.encoders.brivl.tokenizer import TextTokenizer
from brivl_search.errors import CorpusError, UsageError
from tests.support.folders import REPO
from tests.support.stub import environment
from tests.support.tiny import write_vocab
from tests.support.warm import run_processes, run_warm
from tests.train.test_pretrain import log_of, photos, to_toml, write_recipe  # noqa: F401 - a fixture
from train import distributed, pretrain
from train.data.photos import Augment, drop_tokens
from train.data.stream import Plan, ShardSteps, Source, read_sources
from train.pairs import pack
from train.pairs.shards import Pair, Shard, ShardReader, list_shards
from train.recipe import Shards

CAPTIONS = {"zh": 0.5, "en": 0.5}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> dict[str, Path]:  # noqa: F811
    """The first 180 pictures of `photos` in shards of 24, of both kinds."""
    folder = tmp_path_factory.mktemp("packed")
    lines = (photos / "captions.jsonl").read_text(encoding="utf-8").splitlines()[:180]
    (photos / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for kind in ("tar", "lmdb"):
        settings = pack.Settings(shards=kind, per_shard=24)
        pack.pack([photos / "train.jsonl"], folder / kind, settings, workers=0)
    return {"tar": folder / "tar", "lmdb": folder / "lmdb", "source": photos}


def everything(folder: Path) -> list[Pair]:
    reader = ShardReader(keep_open=2)
    return [reader.read(shard, row) for shard in list_shards(folder) for row in range(shard.pairs)]


@pytest.mark.parametrize("kind", ["tar", "lmdb"])
def test_what_is_packed_comes_back(packed: dict[str, Path], kind: str) -> None:
    assert [shard.pairs for shard in list_shards(packed[kind])] == [24] * 7 + [12]
    pairs = everything(packed[kind])
    for number, pair in enumerate(pairs):
        assert pair.image == (packed["source"] / f"{number}.jpg").read_bytes()
    first = json.loads((packed["source"] / "captions.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert pairs[0].record["zh"] == first["zh"] and pairs[0].record["en"] == first["en"]
    assert (pairs[0].record["width"], pairs[0].record["height"]) == (64, 64)
    manifest = json.loads((packed[kind] / "shards.json").read_text())
    assert manifest["complete"] and manifest["pairs"] == 180 and manifest["fields"] == {"zh": 180, "en": 180}


def test_images_that_cannot_be_read_and_bad_lines_are_left_out_and_counted(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    Image.new("RGB", (900, 300), "red").save(source / "wide.png")
    Image.new("RGB", (50, 50), "blue").save(source / "small.jpg")
    (source / "broken.jpg").write_bytes((source / "small.jpg").read_bytes()[:300])
    rows: list[Any] = [{"image": name, "zh": ["一"]} for name in ("wide.png", "broken.jpg", "absent.jpg", "small.jpg")]
    lines = [json.dumps(row) for row in rows] + ["{", json.dumps({"image": "small.jpg"})]
    (source / "captions.jsonl").write_text("\n".join(lines))
    done = pack.pack([source], tmp_path / "out", pack.Settings(max_side=300), workers=0)
    assert done["pairs"] == 2
    assert done["skipped"] == {"truncated": 1, "file vanished": 1, "not JSON": 1, "no caption": 1}
    assert done["examples"]["truncated"] == [str(source / "broken.jpg")]
    wide, small = everything(tmp_path / "out")
    with Image.open(io.BytesIO(wide.image)) as image:
        assert (image.format, image.size) == ("JPEG", (300, 100))
    assert (wide.record["width"], wide.record["height"]) == (900, 300)
    assert small.image == (source / "small.jpg").read_bytes()


@pytest.mark.parametrize("kind", ["tar", "lmdb"])
def test_a_packing_that_was_killed_ends_as_if_it_was_not(
    packed: dict[str, Path], tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def stop(lines: int) -> None:
        raise Killed

    settings = pack.Settings(shards=kind, per_shard=24)
    source = [packed["source"] / "train.jsonl"]
    with pytest.raises(Killed):  # after 100 lines, inside the fifth shard
        pack.pack(source, tmp_path, settings, workers=0, progress=stop)
    with pytest.raises(CorpusError, match="packing did not end"):
        list_shards(tmp_path)
    seen = []
    monkeypatch.setattr(pack, "read_file", lambda path: seen.append(path) or Path(path).read_bytes())
    pack.pack(source, tmp_path, settings, workers=0)
    assert len(seen) == 180 - 96  # four whole shards were kept
    assert not list(tmp_path.glob("*.tmp"))
    for name in sorted(path.name for path in packed[kind].glob(f"*.{kind}")):
        assert (tmp_path / name).stat().st_size == (packed[kind] / name).stat().st_size
        if kind == "tar":
            assert (tmp_path / name).read_bytes() == (packed[kind] / name).read_bytes()
    assert everything(tmp_path) == everything(packed[kind])
    with pytest.raises(UsageError, match="other sources or settings"):
        pack.pack(source, tmp_path, pack.Settings(shards=kind, per_shard=10), workers=0)


def test_tars_of_webdataset_and_img2dataset_are_read_as_they_are(tmp_path: Path) -> None:
    image = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(image, "PNG")
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        for name, data in (
            ("a/1.png", image.getvalue()), ("a/1.txt", "一只狗".encode()),
            ("a/2.txt", b"a text without image"), ("a/3.PNG", image.getvalue()),
            ("a/4.txt", b"the json wins"), ("a/4.json", b'{"caption": "red"}'), ("a/4.png", image.getvalue()),
        ):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    pairs = everything(tmp_path)
    assert [pair.record for pair in pairs] == [{"txt": "一只狗"}, {"caption": "red"}]
    assert pairs[0].image == image.getvalue()
    assert (tmp_path / "00000.tar.index.npy").is_file()
    shutil.copy(tmp_path / "00000.tar", tmp_path / "00001.tar")  # replaced by another tar: its index is not believed
    with tarfile.open(tmp_path / "00000.tar", "a") as tar:
        for name, data in (("5.jpg", image.getvalue()), ("5.json", b'{"caption": "late"}')):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert [pair.record.get("caption") for pair in everything(tmp_path)] == [None, "red", "late", None, "red"]
    os.truncate(tmp_path / "00001.tar", 600)
    with pytest.raises(CorpusError, match=r"00001.tar is damaged at byte"):
        everything(tmp_path)
    with pytest.raises(CorpusError, match=r"holds no shards"):
        list_shards(tmp_path / "a")


def test_an_epoch_is_every_pair_once_in_an_order_of_its_own() -> None:
    sizes = [int(n) for n in np.random.default_rng(0).integers(1, 40, 50)]
    plan = Plan(sizes, seed=3, buffer=100)
    epochs = [plan.at(epoch, 0, plan.pairs) for epoch in (0, 1)]
    for numbers in epochs:
        assert sorted(numbers) == list(range(sum(sizes)))
    assert (epochs[0] != epochs[1]).mean() > 0.9
    assert np.array_equal(Plan(sizes, seed=3, buffer=100).at(0, 0, plan.pairs), epochs[0])
    assert not np.array_equal(Plan(sizes, seed=4, buffer=100).at(0, 0, plan.pairs), epochs[0])
    # Any part of it, asked for in any order, is the same part.
    for first, last in ((700, 900), (0, 1), (310, 420), (99, 101)):
        assert np.array_equal(plan.at(0, first, last), epochs[0][first:last])
    # Few shards are read at a time: those of a window of about 100 pairs, and of the next.
    entries = [len({plan.entry(int(n))[0] for n in epochs[0][at : at + 50]}) for at in range(0, plan.pairs - 50, 50)]
    assert max(entries) < 25
    # And a window is shuffled: neighbours seldom follow each other.
    assert (np.diff(epochs[0]) == 1).mean() < 0.1


def steps(folder: Path, tmp_path: Path, **changes: Any) -> ShardSteps:
    tokenizer = TextTokenizer(write_vocab(tmp_path / "vocab"), 16)
    options = {"batch": 36, "captions": 2, "seed": 1, "pixels": PixelSpec(64), "buffer": 50, "token_dropout": 0.2}
    sources = [Source(list_shards(folder), CAPTIONS)]
    return ShardSteps(sources, tokenizer, augment=Augment(PixelSpec(64), 0.8, 0.1), **options | changes)


def words(batch: dict[str, torch.Tensor]) -> list[list[int]]:
    """Token ids without the padding, whose length is each process' own."""
    return [row[mask].tolist() for row, mask in zip(batch["token_ids"], batch["token_mask"], strict=True)]


def test_processes_see_disjoint_pairs_that_together_are_the_epoch(packed: dict[str, Path], tmp_path: Path) -> None:
    alone = steps(packed["tar"], tmp_path)
    both = [steps(packed["lmdb"], tmp_path, rank=rank, processes=2) for rank in (0, 1)]
    seen: list[list[int]] = [[], []]
    for step in range(5):
        whole, parts = alone[step], [part[step] for part in both]
        for rank, part in enumerate(parts):
            seen[rank] += part["ids"].tolist()
        for name in ("images", "ids"):
            assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])
        assert [row for part in parts for row in words(part)] == words(whole)
    assert not set(seen[0]) & set(seen[1])
    assert sorted(seen[0] + seen[1]) == list(range(180))


def test_a_state_names_the_next_pair_also_for_another_batch(packed: dict[str, Path], tmp_path: Path) -> None:
    first = steps(packed["tar"], tmp_path, batch=36)
    order = np.concatenate([first.plan.at(0, 0, 180), first.plan.at(1, 0, 180)])
    state = first.state(3)
    assert state["epoch"] == 0 and state["first"] == 108
    again = steps(packed["tar"], tmp_path, batch=20)
    again.go_on(3, state)
    assert np.array_equal(np.concatenate([again.numbers(step) for step in (3, 4, 5)]), order[108:168])
    assert np.array_equal(again.numbers(6), order[180:200])  # the 12 that were left make no batch
    assert again.state(6) == {**state, "epoch": 1, "first": 0}
    other = steps(packed["tar"], tmp_path, seed=2)
    with pytest.raises(SystemExit, match="are not those this run began with"):
        other.go_on(3, state)


def test_a_pair_that_cannot_be_used_is_replaced_by_the_next(packed: dict[str, Path], tmp_path: Path) -> None:
    dataset = steps(packed["tar"], tmp_path, plain_view=1.0, flip=0.0)
    read = dataset.reader.read

    def damaged(shard: Shard, row: int) -> Pair:
        pair = read(shard, row)
        return Pair(b"no image", pair.record) if row == 5 else Pair(pair.image, {}) if row == 6 else pair

    dataset.reader.read = damaged  # type: ignore[method-assign]
    with pytest.warns(UserWarning, match="pair 5: its image cannot be read|pair 6: it has no caption"):
        ids = torch.cat([dataset[step]["ids"] for step in range(5)])
    assert len(ids) == 180 and not {5, 6} & {i % 24 for i in ids.tolist()}
    dataset.reader.read = lambda shard, row: Pair(b"no image", {"zh": ["一"]})  # type: ignore[method-assign]
    with pytest.raises(SystemExit, match="20 pairs from"), pytest.warns(UserWarning):
        dataset[0]


def streamed(folder: Path, packed: dict[str, Path], kind: str = "tar", **train: Any) -> Path:
    folder.mkdir(exist_ok=True)
    recipe = write_recipe(folder, packed["source"], **train)
    data = [{"folder": str(packed["source"]), "captions": CAPTIONS, "hold_out_last": 9}]
    lines = [line for line in recipe.read_text(encoding="utf-8").splitlines() if not line.startswith("data = ")]
    shards = [{"folder": str(packed[kind]), "captions": CAPTIONS}]
    recipe.write_text("\n".join(lines) + "\n" + to_toml({"data": data, "shards": shards}), encoding="utf-8")
    return recipe


def test_a_stopped_run_on_shards_goes_on_with_the_same_curve(packed: dict[str, Path], tmp_path: Path) -> None:
    short = {"steps": 16, "eval_every": 20, "token_dropout": 0.1, "batch": 24, "shuffle_buffer": 50}
    whole = streamed(tmp_path / "a", packed, **short)
    parts = streamed(tmp_path / "b", packed, workers=1, kind="lmdb", **short)  # of the other kind, by a worker
    pretrain.main([str(whole)])
    pretrain.main([str(parts), "--stop-after", "10"])  # 7 steps are an epoch: in the middle of the second
    state = torch.load(parts.parent / "run" / "last.pt", weights_only=True)["data"]
    assert (state["epoch"], state["first"]) == (1, 3 * 24)
    pretrain.main([str(parts)])
    a, b = (torch.load(recipe.parent / "run" / "last.pt", weights_only=True) for recipe in (whole, parts))
    assert (
        a["step"] == b["step"] == 16 and a["model"]["text_queue.ids"].tolist() == b["model"]["text_queue.ids"].tolist()
    )
    for name, tensor in a["model"].items():
        torch.testing.assert_close(tensor, b["model"][name], rtol=1e-4, atol=1e-6)
    assert log_of(whole)[-1]["recall"] == log_of(parts)[-1]["recall"]


TOY = {"batch": 12, "captions": 2, "seed": 5, "pixels": PixelSpec(8), "buffer": 60, "plain_view": 0.5}


def toy_losses(folder: Path, vocab: Path, rank: int, processes: int) -> tuple[list[float], list[int]]:
    """MoCo's losses over an epoch of shards, and the ids this process saw."""
    from train.model.moco import MoCo
    from train.model.towers import TwoTowers

    torch.manual_seed(0)

    class Tower(torch.nn.Module):
        def __init__(self, inputs: int) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(inputs, 8)

        def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
            x = x.flatten(1) / 255 if mask is None else (torch.nn.functional.one_hot(x, 120) * mask[..., None]).sum(1)
            return torch.nn.functional.normalize(self.linear(x.double()), dim=-1)

    model = MoCo(TwoTowers(Tower(8 * 8 * 3), Tower(120)), 8, queue_size=48, in_batch_negatives=True).double()
    sources = read_sources([Shards(folder=str(folder), captions=CAPTIONS)], Path("/"), folder)
    augment = Augment(PixelSpec(8), 0.5, 0.3)
    data = ShardSteps(sources, TextTokenizer(vocab, 16), augment=augment, rank=rank, processes=processes, **TOY)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    losses, ids = [], []
    for step in range(data.per_epoch):
        batch = data[step]
        optimizer.zero_grad()
        loss = model(**batch)
        loss.backward()
        distributed.average_gradients(p for p in model.parameters() if p.requires_grad)
        optimizer.step()
        losses.append(distributed.average(float(loss.detach()), torch.device("cpu")))
        ids += batch["ids"].tolist()
    return losses, ids


def _process(rank: int, folder: str, vocab: str, out: str) -> None:
    torch.set_num_threads(1)
    distributed.BUCKET = 100  # the gradients go in several transfers
    distributed.start("cpu")
    torch.save(toy_losses(Path(folder), Path(vocab), rank, 2), f"{out}/{rank}.pt")
    distributed.stop()


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one_with_the_double_batch(packed: dict[str, Path], tmp_path: Path) -> None:
    vocab = write_vocab(tmp_path / "vocab")
    run_processes("tests.train.data.test_stream._process", [str(packed["tar"]), str(vocab), str(tmp_path)])
    want, every = toy_losses(packed["tar"], vocab, 0, 1)
    (one, a), (two, b) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    np.testing.assert_allclose(one, want, rtol=1e-9)
    assert one == two and len(set(want)) == 15
    assert not set(a) & set(b) and sorted(a + b) == sorted(every) == list(range(180))


def test_the_command_packs_and_says_what_it_left_out(packed: dict[str, Path], tmp_path: Path) -> None:
    arguments = [str(packed["source"]), str(tmp_path / "out"), "--shards", "lmdb", "--workers", "1"]
    done = run_warm("train.pairs.pack", arguments, cwd=REPO, env=environment(), timeout=60)
    assert done.returncode == 0 and b"189 pairs in 1 shards" in done.stdout, done.stderr
    with pytest.raises(SystemExit) as exit_:
        pack.main([str(tmp_path / "absent"), str(tmp_path / "other")])
    assert exit_.value.code == 2


def test_dropping_tokens_needs_a_mask_token(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\ndog\n", encoding="utf-8")
    tokenizer = TextTokenizer(tmp_path, 8)
    (ids,) = tokenizer.ids(["dog"])
    assert drop_tokens(tokenizer, ids, 0.0, np.random.default_rng(0)) == ids
    with pytest.raises(SystemExit, match=r"train\.token_dropout needs a tokenizer with a \[MASK\] token"):
        drop_tokens(tokenizer, ids, 0.5, np.random.default_rng(0))
