"""Generated captions: who gets some, how long they hold, and that they are no truth."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from brivl_search.embedding.captioning import Describer
from brivl_search.encoders.base import Origin
from brivl_search.encoders.captioning import Draft, Drafts
from brivl_search.errors import UsageError
from brivl_search.evaluation import evaluate_index
from brivl_search.index import IndexReader
from brivl_search.index.keys import caption_key, generated_field, is_generated
from brivl_search.ingest import run
from brivl_search.ingest.generated import Generating
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.report import BuildReport, Silent
from tests.support.pictures import write_corpus, write_lines
from tests.support.stub import SIDE, StubEncoder


class StubCaptioner:
    """Says how bright a picture is; fails once it has written `most`."""

    languages, cosine_weight = ("zh", "en"), 0.0

    def __init__(self, name: str = "stub-captioner", most: int = 99) -> None:
        self.name, self.fingerprint, self.most = name, f"captioner-{name}", most
        self.pixels = StubEncoder().pixels
        self.read: list[str] = []

    def write(
        self, pixels: np.ndarray, origins: Sequence[Origin], languages: Sequence[str], count: int
    ) -> list[Drafts]:
        assert pixels.shape[1:] == (SIDE, SIDE, 3)
        out = []
        for one, origin in zip(pixels, origins, strict=True):
            if len(self.read) == self.most:
                raise KeyboardInterrupt
            self.read.append(Path(origin.path).name)
            bright = f"{one.mean():.3f}"
            out.append(Drafts({name: [Draft(f"{self.name} {name} {bright}", -1.0)] for name in languages}))
        return out


def build(
    folder: Path, index: Path, captioner: StubCaptioner | None = None, languages: tuple[str, ...] = ("en",)
) -> BuildReport:
    what = None if captioner is None else Generating(languages, Describer(captioner))
    options = BuildOptions(workers=0, batch_size=2)
    return run.build_index([folder], index, StubEncoder(), options, Silent(), what)


def generated(index: Path) -> dict[str, dict[str, str]]:
    """Name of a picture → language → the caption that a model wrote."""
    found: dict[str, dict[str, str]] = {}
    with IndexReader.open(index) as reader:
        for _, _, record in reader.records("text"):
            if record.get("generated") is True:
                assert record["captioner"].startswith("stub")
                found.setdefault(Path(record["image"]).name, {})[record["field"]] = record["text"]
    return found


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four pictures; the first has a caption."""
    paths = write_corpus(tmp_path / "photos", 4, with_captions=False)
    write_lines(tmp_path / "photos" / "captions.jsonl", [{"image": f"images/{paths[0].name}", "en": "a red circle"}])
    return tmp_path / "photos"


def test_photos_without_captions_get_some(photos: Path, tmp_path: Path) -> None:
    index, captioner = tmp_path / "index", StubCaptioner()
    names = sorted(path.name for path in (photos / "images").iterdir())
    report = build(photos, index, captioner, ("zh", "en"))
    assert (report.captions, report.captions_embedded) == (1, 1)
    assert (report.captions_generated, report.photos_captioned) == (6, 3)
    made = generated(index)
    assert sorted(made) == names[1:] == sorted(captioner.read)
    assert all(set(some) == {"zh", "en"} for some in made.values())
    # nothing is written twice; a plain build, and one in one of the languages, keep what there is
    for again in (StubCaptioner(), None):
        report = build(photos, index, again)
        assert report.captions_generated == report.captions_removed == 0 and (again is None or not again.read)
        assert generated(index) == made
    # another captioner writes anew, in its language alone
    report = build(photos, index, StubCaptioner("stub-other"), ("en",))
    assert report.captions_generated == 3
    assert all(some["en"].startswith("stub-other en") for some in generated(index).values())
    assert all(some["zh"] == made[name]["zh"] for name, some in generated(index).items())
    report = run.build_index([photos], index, StubEncoder(), BuildOptions(workers=0), Silent(), Generating())
    assert generated(index) == {} and report.captions_removed == 6


def test_they_go_with_what_they_were_written_for(photos: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    first, second, third = sorted((photos / "images").iterdir())[1:]
    build(photos, index, StubCaptioner())
    made = generated(index)
    second.write_bytes(third.read_bytes())  # another picture in its place
    first.unlink()
    build(photos, index)
    assert generated(index) == {third.name: made[third.name]}
    shutil.copy(third, photos / "copy.png")
    captioner = StubCaptioner()
    report = build(photos, index, captioner)
    assert captioner.read == [] and report.captions_generated == 2  # both are copies of a photo that has one
    assert set(map(json.dumps, generated(index).values())) == {json.dumps(made[third.name])}
    assert sorted(generated(index)) == sorted([second.name, third.name, "copy.png"])
    with (photos / "captions.jsonl").open("a", encoding="utf-8") as more:
        more.write(json.dumps({"image": f"images/{third.name}", "zh": "一个图形"}) + "\n")
    build(photos, index)
    assert sorted(generated(index)) == sorted([second.name, "copy.png"])


def test_a_killed_build_goes_on(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "FLUSH_SECONDS", 0.0)
    index, captioner = tmp_path / "index", StubCaptioner(most=2)
    with pytest.raises(KeyboardInterrupt):
        build(photos, index, captioner)
    again = StubCaptioner()
    build(photos, index, again)
    assert len(captioner.read) == 2 and len(again.read) == 1 and not set(captioner.read) & set(again.read)
    assert len(generated(index)) == 3


def test_they_are_no_truth(photos: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    build(photos, index, StubCaptioner())
    with IndexReader.open(index) as reader:
        result = evaluate_index(reader, [1])
    way = result.of("text_to_image")["exact"]
    assert way is not None and way.queries == 1 and way.candidates == 4
    assert result.of("image_to_text")["exact"].candidates == 1  # type: ignore[union-attr]
    assert "3 generated captions are left out: they are no truth" in result.notes
    (photos / "captions.jsonl").unlink()
    build(photos, index)
    with IndexReader.open(index) as reader, pytest.raises(UsageError, match="are generated, and no truth"):
        evaluate_index(reader, [1])


def test_a_line_of_a_file_may_be_generated(photos: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    names = sorted(path.name for path in (photos / "images").iterdir())
    line = {"image": f"images/{names[1]}", "en": "dark", "generated": True, "captioner": "stub-file", "mood": "sad"}
    with (photos / "captions.jsonl").open("a", encoding="utf-8") as more:
        more.write(json.dumps(line) + "\n")
    captioner = StubCaptioner()
    build(photos, index, captioner)
    assert sorted(captioner.read) == names[2:] and generated(index)[names[1]] == {"en": "dark"}
    with IndexReader.open(index) as reader:
        fields = {Path(r["path"]).name: r.get("fields") for _, _, r in reader.records("image")}
        (record,) = (r for _, _, r in reader.records("text") if r["text"] == "dark")
    assert fields[names[1]] == {"mood": "sad"} and record["captioner"] == "stub-file"
    with (photos / "captions.jsonl").open("a", encoding="utf-8") as more:  # a person says the same
        more.write(json.dumps({"image": f"images/{names[1]}", "en": "dark"}) + "\n")
    build(photos, index)
    with IndexReader.open(index) as reader:
        (record,) = (r for _, _, r in reader.records("text") if r["text"] == "dark")
    assert "generated" not in record and names[1] not in generated(index)


def test_keys_tell_them() -> None:
    content = "ab" * 32
    key = caption_key("/a/b.jpg", generated_field("zh", content, "captioner-1"), "cd" * 32)
    assert is_generated(key) and is_generated(key, content) and not is_generated(key, "ba" * 32)
    assert not is_generated(caption_key("/a/b.jpg", "zh", "cd" * 32))
    assert generated_field("zh", content, "captioner-1") != generated_field("zh", content, "captioner-2")
