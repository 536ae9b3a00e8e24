"""`caption` and `build-index --generate-captions` as people type them, and how mistakes end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.captioners import make_captioner
from tests.support.matchers import make_matcher
from tests.support.pictures import write_corpus
from tests.support.site import Ended, refused


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> str:
    return str(make_captioner(tmp_path_factory.mktemp("c") / "captioner", tiny_checkpoint))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five pictures; the first two have captions."""
    write_corpus(tmp_path / "photos", 5)
    lines = (tmp_path / "photos" / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "photos" / "captions.jsonl").write_text("\n".join(lines[:2]) + "\n", encoding="utf-8")
    return tmp_path / "photos"


def rows(ended: Ended) -> list[dict[str, Any]]:
    assert ended.code == 0, ended
    return [json.loads(line) for line in ended.out.splitlines()]


def test_photos_get_captions(
    cli: Callable[..., Ended], captioner: str, photos: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    (photos / "broken.jpg").write_bytes(b"no picture")
    how = ["--encoder", str(tiny_checkpoint), "--captioner", captioner, "--workers", "0"]
    ended = cli("caption", str(photos), "--lang", "both", "-n", "2", *how)
    found = rows(ended)
    assert len(found) == 5 and "1 skipped" in ended.err and "broken.jpg" in ended.err
    for row in found:
        assert row["generated"] is True and row["captioner"] == captioner and Path(row["image"]).is_file()
        for language in ("zh", "en"):
            assert 1 <= len(row[language]) <= 2 and all(row[language])
            ordered = [one["score"] + 1.5 * one["cosine"] for one in row["scores"][language]]
            assert ordered == sorted(ordered, reverse=True)
    assert cli("caption", str(photos), "--strict", *how).code == 4
    matcher = str(make_matcher(tmp_path / "matcher", tiny_checkpoint))
    first = rows(cli("caption", found[0]["image"], "-n", "3", "--rerank-with", matcher, *how))[0]
    scores = [one["rerank"] for one in first["scores"]["en"]]
    assert len(scores) > 1 and scores == sorted(scores, reverse=True)
    table = cli("caption", found[0]["image"], "--format", "table", *how)
    assert table.code == 0 and found[0]["en"][0] in table.out


def test_from_python(captioner: str, photos: Path, tiny_checkpoint: Path) -> None:
    from brivl_search import write_captions
    from brivl_search.errors import UnreadPictureWarning, UsageError

    (photos / "broken.jpg").write_bytes(b"no picture")
    how: dict[str, Any] = {"captioner": captioner, "encoder": str(tiny_checkpoint), "workers": 0}
    with pytest.warns(UnreadPictureWarning, match=r"broken\.jpg: not an image"):
        found = write_captions(str(photos), "zh", 2, **how)
    assert len(found) == 5 and all(1 <= len(some) <= 2 and some[0].cosine is not None for some in found.values())
    with pytest.raises(UsageError, match="`count` 0"):
        write_captions([photos], count=0, **how)


def test_a_file_of_captions_is_indexed_and_is_no_truth(
    cli: Callable[..., Ended], captioner: str, photos: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    how = ["--encoder", str(tiny_checkpoint), "--captioner", captioner, "--workers", "0"]
    out = photos / "captions.jsonl"
    before = out.read_bytes()
    refused(cli("caption", str(photos), "--out", str(out), *how), 2, "--out", "is there already", "--force")
    assert out.read_bytes() == before
    ended = cli("caption", str(photos), "--lang", "en", "--out", str(out), "--force", *how)
    assert ended.code == 0 and "captions of 5 photos" in ended.err, ended
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [set(line) for line in lines] == [{"image", "en", "generated", "captioner"}] * 5
    assert all((photos / line["image"]).is_file() and not line["image"].startswith("/") for line in lines)
    index = str(tmp_path / "index")
    assert cli("build-index", str(photos), "-i", index, "--encoder", str(tiny_checkpoint)).code == 0
    hits = rows(cli("query", "--image", str(photos / lines[0]["image"]), "--target", "texts", "-i", index))
    assert hits and all(hit["generated"] is True and hit["captioner"] == captioner for hit in hits)
    assert "generated)" in cli("query", "dog", "--target", "texts", "-i", index, "--format", "table").out
    refused(cli("eval", "-i", index), 2, "are generated, and no truth")
    refused(cli("eval", "--dataset", str(photos), "--encoder", str(tiny_checkpoint)), 1, "generated captions alone")
    with out.open("a", encoding="utf-8") as more:  # a person writes one
        more.write(json.dumps({"image": lines[0]["image"], "en": "a red circle"}) + "\n")
    assert cli("build-index", str(photos), "-i", index).code == 0
    ended = cli("eval", "-i", index, "--format", "json")
    assert ended.code == 0 and json.loads(ended.out)["text_to_image"]["queries"] == 1, ended


def test_a_build_writes_what_is_missing(
    cli: Callable[..., Ended], captioner: str, photos: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    index = str(tmp_path / "index")
    build = ["build-index", str(photos), "-i", index, "--workers", "0"]

    def texts() -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for hit in rows(cli("query", "dog", "--target", "texts", "-i", index, "-k", "99")):
            if hit.get("generated"):
                found.setdefault(Path(hit["image"]).name, []).append(hit)
        return found

    ended = cli(*build, "--encoder", str(tiny_checkpoint), "--generate-captions", "both", "--captioner", captioner)
    assert ended.code == 0 and "6 captions generated for 3 images" in ended.err, ended
    made = texts()
    assert len(made) == 3 and all({hit["field"] for hit in some} == {"zh", "en"} for some in made.values())
    ended = cli("eval", "-i", index, "--format", "json")
    figures = json.loads(ended.out)
    assert "6 generated captions are left out" in json.dumps(figures) + ended.err, ended
    # nothing is written twice, and a plain build keeps what there is
    again = cli(*build, "--generate-captions", "both", "--captioner", captioner)
    assert again.code == 0 and "generated" not in again.err and texts() == made, again
    assert cli(*build).code == 0 and texts() == made
    # a copy gets the same; a changed picture other ones; a caption by a person takes their place
    names = sorted(made)
    shutil.copy(next(photos.rglob(names[0])), photos / "copy.jpg")
    shutil.copy(next(photos.rglob(names[2])), next(photos.rglob(names[1])))
    assert cli(*build).code == 0
    assert set(texts()) == {names[0], names[2]}
    ended = cli(*build, "--generate-captions", "en", "--captioner", captioner)
    found = texts()
    assert "2 captions generated" in ended.err and set(found) == {*names, "copy.jpg"}, ended
    assert found["copy.jpg"][0]["text"] in [hit["text"] for hit in found[names[0]] if hit["field"] == "en"]
    relative = str(next(photos.rglob(names[0])).relative_to(photos))
    with (photos / "captions.jsonl").open("a", encoding="utf-8") as more:
        more.write(json.dumps({"image": relative, "en": "a red circle"}) + "\n")
    assert cli(*build).code == 0
    assert set(texts()) == {names[1], names[2], "copy.jpg"}
    ended = cli(*build, "--generate-captions", "none")
    assert ended.code == 0 and texts() == {}


def test_mistakes(cli: Callable[..., Ended], captioner: str, photos: Path, tiny_checkpoint: Path) -> None:
    encoder = ["--encoder", str(tiny_checkpoint)]
    refused(cli("caption", str(photos), "--captioner", "nowhere", *encoder), 2, "no captioner 'nowhere'")
    refused(cli("caption", "nowhere.jpg", "--captioner", captioner, *encoder), 2, "no such file")
    refused(cli("caption", str(photos), "--captioner", captioner, "--out", "x.txt", *encoder), 2, "ends in .jsonl")
    refused(cli("caption", str(photos), "--captioner", captioner), 1, "reads another image tower")
    refused(
        cli("build-index", str(photos), "-i", "other", "--captioner", captioner, *encoder), 2, "--generate-captions"
    )
