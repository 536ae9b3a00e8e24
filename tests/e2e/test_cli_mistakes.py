"""Every mistake a user makes ends in one line that names it, and the documented exit code."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.pictures import jpeg, write_bad_files, write_corpus
from tests.support.site import PICTURE, Ended, refused, run

WRONG: list[tuple[list[str], int, list[str]]] = [
    (["build-index", "nowhere"], 2, ["no such folder", "nowhere"]),
    (["build-index", PICTURE], 2, ["not a folder", PICTURE]),
    (["build-index"], 2, ["FOLDER"]),
    (["build-index", "empty"], 1, ["no images", "empty"]),
    (["build-index", "documents"], 1, ["no images", "documents", "2 files"]),
    (["build-index", "photos", "--encoder", "no-such"], 2, ["no-such", "brivl-mini"]),
    (["build-index", "photos", "--batch-size", "0"], 2, ["--batch-size"]),
    (["build-index", "photos", "--index-type", "magic"], 2, ["--index-type", "magic"]),
    (["build-index", "photos", "--captions", ","], 2, ["--captions"]),
    (["build-index", "photos", "--device", "abacus", "--index", "fresh"], 2, ["abacus"]),
    (["query", "red", "--index", "nowhere"], 3, ["nowhere", "build-index"]),
    (["info", "--index", "nowhere"], 3, ["nowhere"]),
    (["verify", "--index", "nowhere"], 3, ["nowhere"]),
    (["eval", "--index", "nowhere"], 3, ["nowhere"]),
    (["query", "red", "--index", "photos"], 3, ["photos"]),
    (["query", ""], 2, ["query is empty"]),
    (["query", "  "], 2, ["query is empty"]),
    (["query"], 2, ["--image"]),
    (["query", "red", "-k", "0"], 2, ["--top-k 0"]),
    (["query", "red", "-k", "many"], 2, ["--top-k"]),
    (["query", "red", "--nprobe", "0"], 2, ["--nprobe 0"]),
    (["query", "red", "--rerank", "-1"], 2, ["--rerank -1"]),
    (["query", "red", "--format", "xml"], 2, ["--format", "xml"]),
    (["query", "red", "--no-such-option"], 2, ["--no-such-option"]),
    (["query", "red", "--encoder", "no-such"], 2, ["no-such"]),
    (["query", "--image", "nowhere.jpg"], 2, ["nowhere.jpg"]),
    (["query", "--image", "corrupt.jpg"], 2, ["corrupt.jpg"]),
    (["query", "--image", "photos"], 2, ["photos"]),
    (["eval", "--recall-at", "0"], 2, ["--recall-at 0"]),
    (["eval", "--recall-at", "a,b"], 2, ["--recall-at a,b"]),
    (["eval", "--captions", "fr"], 2, ["fr", "zh"]),
    (["eval", "--dataset", "nowhere"], 2, ["nowhere"]),
    (["eval", "--dataset", "empty"], 2, ["captions.jsonl"]),
    (["eval", "--dataset", "badlines"], 1, ["captions.jsonl:2", "not JSON"]),
    (["no-such-verb"], 2, ["no-such-verb"]),
    (["models", "bench"], 2, ["NAME", "brivl-search models bench --help"]),
    (["models", "runtimes"], 2, ["ENCODER", "brivl-search models runtimes --help"]),
    (["embed", "--text", "x", "--encoder", "hf:"], 2, ["hf: says no model", "hf:FOLDER"]),
    (["embed", "--text", "x", "--encoder", "open_clip:"], 2, ["open_clip: says no model", "NAME/PRETRAINED"]),
    (["embed", "--text", "x", "--encoder", "brivl-mini?dim=64"], 2, ["?dim=", "for hf: and open_clip: models"]),
    (["embed", "--text", "x", "--encoder", "hf:a/b+precision=int9"], 2, ["'int9'", "int8 or bf16"]),
    (["embed", "--text", "x", "--encoder", f"hf:{'c' * 300}/a/b?query_prompt=x"], 2, ["no encoder hf:ccc", "ORG/NAME"]),
    (["embed", "--text", "x", "--encoder", "hf:~nobody-here/a/b?query_prompt=query:"], 2, ["hf:~nobody-here/a/b:"]),
    (["embed", "--text", "x", "--encoder", "./nowhere"], 2, ["./nowhere", "checkpoint folder"]),
    (["embed", "--text", "x", "--encoder", "official:nowhere.pth"], 2, ["official:nowhere.pth: there is no file"]),
    (["embed", "--text", "x", "--encoder", "open_clip:nowhere/at-all"], 2, ["no encoder open_clip:nowhere/at-all"]),
    (["embed", "--text", "x", "--encoder", "brivl-mini+detector=hf:nowhere"], 2, ["hf:nowhere", "ORG/NAME"]),
    (["embed", "--text", "x", "--encoder", "empty"], 1, ["is not a checkpoint", "config.json"]),
    (["models", "convert", "official:nowhere.pth", "out"], 2, ["there is no file nowhere.pth"]),
    (["query", "red", "--rerank-with", "nowhere"], 2, ["no matcher 'nowhere'", "brivl-mini-rerank"]),
    (["query", "red", "--rerank-with", "hf:nowhere"], 2, ["hf:nowhere", "ORG/NAME"]),
    (["query", "red", "--rerank-with", "empty"], 1, ["is not a matcher", "config.json"]),
    (["caption", PICTURE, "--captioner", "nowhere"], 2, ["no captioner 'nowhere'"]),
    (["caption", PICTURE, "--captioner", "hf:nowhere"], 2, ["hf:nowhere", "ORG/NAME"]),
    (["caption", PICTURE, "--captioner", "empty"], 1, ["holds no captioner"]),
]


@pytest.fixture(scope="module")
def mistakes(site: Path) -> Path:
    """What the mistakes are made with."""
    (site / "empty").mkdir()
    (site / "documents").mkdir()
    for name in ("a.txt", "b.pdf"):
        (site / "documents" / name).write_text("text")
    (site / "corrupt.jpg").write_bytes(jpeg()[:300])
    write_corpus(site / "badlines", 3)
    lines = (site / "badlines" / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    lines[1] = "{broken"
    (site / "badlines" / "captions.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return site


@pytest.mark.usefixtures("mistakes")
@pytest.mark.parametrize(("arguments", "code", "words"), WRONG, ids=[" ".join(case[0]) or "-" for case in WRONG])
def test_mistakes(
    cli: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
    tiny_checkpoint: Path,
    arguments: list[str],
    code: int,
    words: list[str],
) -> None:
    monkeypatch.setenv("BRIVL_SEARCH_INDEX", "index")
    if "--dataset" in arguments or "fresh" in arguments:
        arguments = [*arguments, "--encoder", str(tiny_checkpoint)]
    ended = cli(*arguments)
    refused(ended, code, *words)


def test_mistakes_in_a_process_of_their_own(mistakes: Path) -> None:
    """A few of the same through the real thing."""
    refused(run(mistakes, "build-index", "nowhere", "--index", "index"), 2, "no such folder: nowhere")
    refused(run(mistakes, "query", "red", "--index", "nowhere"), 3, "nowhere")
    refused(run(mistakes, "query", "red", "--what"), 2, "--what")


def test_index_of_another_encoder(cli: Callable[..., Ended], tmp_path: Path, tiny_checkpoint: Path) -> None:
    from tests.support.tiny import make_checkpoint

    other = make_checkpoint(tmp_path / "other", seed=1)
    for arguments in (["query", "red"], ["build-index", "photos"]):
        ended = cli(*arguments, "--index", "index", "--encoder", str(other))
        refused(ended, 3, str(tiny_checkpoint), str(other), "--encoder")
    assert cli("verify", "--index", "index").code == 0


def test_an_encoder_that_has_moved(cli: Callable[..., Ended], tmp_path: Path) -> None:
    from tests.support.tiny import make_checkpoint

    place, index = make_checkpoint(tmp_path / "编码 器", seed=1), str(tmp_path / "moved")
    assert cli("build-index", "photos", "--index", index, "--encoder", str(place)).code == 0
    place.rename(tmp_path / "new place")
    for verb in (["sync"], ["query", "red"], ["build-index", "photos"]):
        refused(cli(*verb, "--index", index), 3, "编码 器", "--encoder")
    assert cli("build-index", "photos", "--index", index, "--encoder", str(tmp_path / "new place")).code == 0
    assert cli("sync", "--index", index).code == cli("query", "red", "--index", index).code == 0


def test_half_deleted_index(cli: Callable[..., Ended], site: Path, tmp_path: Path) -> None:
    for gone in ("shards", "catalog.lmdb", "one shard"):
        index = tmp_path / gone.replace(" ", "-")
        shutil.copytree(site / "index", index)
        if gone == "shards":
            shutil.rmtree(index / "shards")
        elif gone == "catalog.lmdb":
            (index / gone).unlink()
        else:
            next((index / "shards").glob("image-*")).unlink()
        for verb in (["query", "red"], ["info"], ["eval"], ["verify"]):
            ended = cli(*verb, "--index", str(index))
            if verb == ["verify"] and ended.out:  # says what is wrong with the rest first
                ended = ended._replace(out="", err=ended.err.splitlines()[-1])
            if gone == "one shard" and verb == ["info"]:
                assert ended.code == 0 and "is missing" in ended.err
            else:
                refused(ended, 3, str(index))


def test_damaged_index(cli: Callable[..., Ended], site: Path, tmp_path: Path) -> None:
    shutil.copytree(site / "index", tmp_path / "index")
    shard = next((tmp_path / "index" / "shards").glob("image-*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)
    ended = cli("verify", "--index", str(tmp_path / "index"))
    assert ended.code == 3 and shard.name in ended.err and "problem" in ended.out
    assert ended.err.splitlines()[-1].startswith("brivl-search: the index at ")


def test_skipped_files_and_bad_caption_lines(
    cli: Callable[..., Ended], mistakes: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    shutil.copytree(mistakes / "badlines", tmp_path / "photos")
    reasons = write_bad_files(tmp_path / "photos" / "bad")
    build = ("build-index", str(tmp_path / "photos"), "--index", str(tmp_path / "index"), "--encoder")
    done = cli(*build, str(tiny_checkpoint))
    assert done.code == 0 and done.out == "", done
    for reason in reasons.values():
        assert f"skipped: {reason}" in done.err
    assert f"{tmp_path}/photos/captions.jsonl:2: not JSON" in done.err
    assert "3 images found" not in done.err or f"{len(reasons)} skipped" in done.err
    strict = cli(*build, str(tiny_checkpoint), "--strict", "-v")
    assert strict.code == 4 and all(name in strict.err for name in reasons)
    last = strict.err.splitlines()[-1]
    assert last == f"brivl-search: {len(reasons)} files and 1 caption lines were skipped (--strict)"
