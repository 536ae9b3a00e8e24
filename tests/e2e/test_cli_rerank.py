"""`--rerank-with` as people type it: query, batch, eval, and how mistakes end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.matchers import make_matcher
from tests.support.site import Ended
from tests.support.tiny import make_checkpoint


@pytest.fixture(scope="module")
def matcher(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> str:
    return str(make_matcher(tmp_path_factory.mktemp("m") / "matcher", tiny_checkpoint))


def rows(ended: Ended) -> list[dict[str, object]]:
    assert ended.code == 0, ended
    return [json.loads(line) for line in ended.out.splitlines()]


def test_a_query_and_a_picture(cli: Callable[..., Ended], matcher: str) -> None:
    plain = rows(cli("query", "a red circle", "-i", "index", "-k", "30"))
    hits = rows(cli("query", "a red circle", "-i", "index", "-k", "30", "--rerank-with", matcher, "--rerank-top", "12"))
    assert sorted(str(hit["path"]) for hit in hits[:12]) == sorted(str(hit["path"]) for hit in plain[:12])
    assert [hit["path"] for hit in hits[12:]] == [hit["path"] for hit in plain[12:]]
    scores = [float(str(hit["rerank"])) for hit in hits[:12]]
    assert scores == sorted(scores, reverse=True) and all("rerank" not in hit for hit in hits[12:])
    picture = str(plain[0]["path"])
    captions = rows(cli("query", "--image", picture, "-i", "index", "-k", "5", "--rerank-with", matcher))
    assert len(captions) == 5 and all("rerank" in hit and "text" in hit for hit in captions)
    table = cli("query", "a red circle", "-i", "index", "--rerank-with", matcher, "--format", "table")
    assert table.code == 0 and "score" in table.out


def test_a_batch_names_an_unread_picture_once(
    cli: Callable[..., Ended], matcher: str, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    from tests.support.pictures import write_corpus

    paths = write_corpus(tmp_path / "photos", 4)
    index = str(tmp_path / "index")
    assert cli("build-index", str(tmp_path / "photos"), "-i", index, "--encoder", str(tiny_checkpoint)).code == 0
    paths[0].write_bytes(b"no picture any more")
    (tmp_path / "q.txt").write_text("a red circle\na blue ring\n", encoding="utf-8")
    ended = cli("query", "--batch", str(tmp_path / "q.txt"), "-i", index, "--rerank-with", matcher)
    assert len(rows(ended)) == 8 and ended.err.count("not re-ordered") == 1 and paths[0].name in ended.err


def test_eval_has_a_column_and_a_time(cli: Callable[..., Ended], matcher: str) -> None:
    ended = cli(
        "eval", "-i", "index", "--captions", "en", "--rerank-with", matcher, "--rerank-top", "5", "--format", "json"
    )
    assert ended.code == 0, ended
    figures = json.loads(ended.out)
    assert figures["matcher"]["top"] == 5 and figures["matcher"]["fingerprint"].startswith("matcher-")
    for direction in ("text_to_image", "image_to_text"):
        found = figures[direction]
        # only the first five change places
        assert found["re_ordered"]["R@5"] == found["through_index"]["R@5"] and found["matcher_ms"]["p50"] > 0
        assert found["re_ordered"]["R@10"] == found["through_index"]["R@10"]
    table = cli("eval", "-i", "index", "--captions", "en", "--rerank-with", matcher, "--no-ci", "--format", "table")
    assert "re-ordered" in table.out and "ms of the matcher" in table.out and "the first 32 hits" in table.out


def test_mistakes(cli: Callable[..., Ended], matcher: str, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", seed=5)
    foreign = str(make_matcher(tmp_path / "foreign", other))
    for arguments, code, said in (
        (("query", "a dog", "--rerank-with", "nowhere"), 2, "no matcher 'nowhere'"),
        (("query", "a dog", "--rerank-with", foreign), 1, "another image tower"),
        (("query", "a dog", "--plus", "snow", "--rerank-with", matcher), 2, "--rerank-with is for one text"),
        (("query", "a dog", "--target", "texts", "--rerank-with", matcher), 2, "not for captions by a text"),
        (("query", "a dog", "--rerank-with", matcher, "--rerank-top", "0"), 2, "--rerank-top 0"),
        (("eval", "--dataset", "photos", "--rerank-with", matcher), 2, "leave out --dataset"),
    ):
        where = () if "--dataset" in arguments else ("-i", "index")
        ended = cli(*arguments, *where)
        assert (ended.code, "Traceback" in ended.err) == (code, False), ended
        assert said in ended.err and ended.err.count("\n") == 1, ended
