"""Hub corrections from the command line: fitted, kept, taken by indexes, shown by eval and info, carried, dropped."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brivl_search.corpus.images import PixelSpec
from brivl_search.encoders import hub_corrections, registry
from brivl_search.errors import EncoderError
from brivl_search.index import IndexReader
from brivl_search.index.hubs import read_correction
from brivl_search.search.engine import Engine, SearchOptions
from brivl_search.search.queries import compose
from tests.support.hubs import DIM, made_pairs
from tests.support.site import Ended

PHOTOS, SIDE = 240, 8
Run = Callable[..., Ended]


class Numbered:
    """An encoder of made vectors: picture n has the colour that says n, caption "n c" is its c-th."""

    confidence = None

    def __init__(self, hubs: bool) -> None:
        self.name, self.dim, self.fingerprint = "numbered", DIM, f"numbered-{hubs}"
        self.pixels, self.calibration = PixelSpec(size=SIDE), None
        self.texts, self.images, _ = made_pairs(hubs, photos=PHOTOS)

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        numbers = (pixels[:, 0, 0, 0] // 8).astype(int) * 32 + pixels[:, 0, 0, 1] // 8
        return self.images[numbers]

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        numbers = [int(a) * 3 + int(b) for a, b in (text.split() for text in texts)]
        return self.texts[numbers] if numbers else np.zeros((0, DIM), np.float32)

    def warm_up(self) -> None: ...

    def cut_tokens(self, texts: Sequence[str]) -> list[int]:
        return [0] * len(texts)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    with (folder / "captions.jsonl").open("w") as lines:
        for n in range(PHOTOS):
            Image.new("RGB", (SIDE, SIDE), (n // 32 * 8 + 4, n % 32 * 8 + 4, 0)).save(folder / f"{n:03}.png")
            lines.write(json.dumps({"image": f"{n:03}.png", "en": [f"{n} {c}" for c in range(3)]}) + "\n")
    return folder


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Whatever encoder is asked for is the numbered one."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def use(hubs: bool) -> None:
        def load(name: str, device: str, precision: str) -> Any:
            return Numbered(hubs)

        monkeypatch.setattr(registry, "_load", load)

    use(True)
    return use


def test_fitted_kept_and_used(photos: Path, tmp_path: Path, site: Callable[[bool], None], run_here: Run) -> None:
    old, new = ("--index", str(tmp_path / "old")), ("--index", str(tmp_path / "new"))
    build = ("build-index", str(photos), "--workers", "0", "-q")
    assert run_here(*build, *old).code == 0
    learn = ("models", "calibrate", "numbered", "--dataset", str(photos), "-q")
    done = run_here(*learn, "--format", "json")
    found = json.loads(done.out)["hubs"]
    assert done.code == 0 and found["kept"] and found["gain"] > 2 and found["after"]["R@1"] > found["before"]["R@1"]
    table = run_here(*learn, "--format", "table").out
    assert "hub correction: less 0." in table and "that it was not chosen on: R@1" in table
    saved = hub_corrections.saved("numbered-True")
    assert saved is not None and saved.weight == found["weight"]

    def shown(index: tuple[str, str]) -> dict[str, Any]:
        return json.loads(run_here("eval", *index, "--no-ci", "--format", "json").out)

    plain = shown(old)
    assert "corrected" not in plain["text_to_image"] and plain["calibration_error"] is not None
    assert json.loads(run_here("info", *old, "--format", "json").out)["image"]["hub_correction"] is None
    assert run_here("sync", *old, "-q").code == 0 and read_correction(tmp_path / "old", "image") is None
    assert run_here(*build, *new).code == 0  # a new index takes it
    err = run_here("compact", *old).err  # one that is there takes it when it is compacted
    assert "hub correction: text → image scores less" in err
    for index in (old, new):
        out = shown(index)
        before, after, through = (out["text_to_image"][name]["R@1"] for name in ("exact", "corrected", "through_index"))
        assert before == plain["text_to_image"]["exact"]["R@1"] and after == through > before + 2
        both = out["image_to_text"]
        assert both["exact"]["R@1"] == both["corrected"]["R@1"] == both["through_index"]["R@1"]
        assert json.loads(run_here("info", *index, "--format", "json").out)["image"]["hub_correction"] == {
            "weight": found["weight"], "nearest": found["nearest"], "references": found["references"]
        }  # fmt: skip
    table = run_here("eval", *new, "--no-ci", "--format", "table").out
    assert "hubs corrected" in table and "match: expected calibration error" in table
    assert "hub correction: text → image" in run_here("info", *new, "--format", "table").out
    dataset = json.loads(run_here("eval", "--dataset", str(photos), "--no-ci", "--format", "json", "-q").out)
    assert dataset["text_to_image"]["corrected"]["R@1"] == pytest.approx(
        shown(new)["text_to_image"]["corrected"]["R@1"], abs=0.5
    )
    report = tmp_path / "report.html"
    assert run_here("eval", *new, "--no-ci", "--report", str(report), "-q").code == 0
    assert "hubs corrected" in report.read_text()
    lines = tmp_path / "lines.jsonl"
    assert run_here("eval", *new, "--no-ci", "--per-query", str(lines), "-q").code == 0
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    corrected = [row for row in rows if (row["search"], row["direction"]) == ("corrected", "text_to_image")]
    assert len(corrected) == 3 * PHOTOS
    for row in corrected:  # the list is the one that the ranks are of
        rank, number = row["partners"][0]["rank"], row["partners"][0]["number"]
        assert rank > 10 or row["top"][rank - 1]["number"] == number
    # an index carries it: out, in, and without the user's file
    assert run_here("export", str(tmp_path / "out"), *new, "-q").code == 0
    gone = run_here("models", "calibrate", "numbered", "--forget")
    assert "its hub correction is gone" in gone.err and hub_corrections.saved("numbered-True") is None
    again = ("--index", str(tmp_path / "again"))
    assert run_here("import", str(tmp_path / "out"), *again, "-q").code == 0
    carried, there = read_correction(tmp_path / "again", "image"), read_correction(tmp_path / "new", "image")
    assert carried is not None and there is not None and carried.sha256 == there.sha256 == saved.sha256
    assert shown(again)["text_to_image"]["through_index"] == shown(new)["text_to_image"]["through_index"]
    assert "nothing to compact" in run_here("compact", *new).err
    assert read_correction(tmp_path / "new", "image") is not None
    assert "none any more" in run_here("compact", *new, "--no-hub-correction").err
    assert shown(new)["text_to_image"]["through_index"]["R@1"] == plain["text_to_image"]["through_index"]["R@1"]


def test_none_is_kept_where_it_brings_nothing(
    photos: Path, site: Callable[[bool], None], run_here: Run, tmp_path: Path
) -> None:
    learn = ("models", "calibrate", "numbered", "--dataset", str(photos))
    assert run_here(*learn, "-q").code == 0 and hub_corrections.saved("numbered-True") is not None
    site(False)
    done = run_here(*learn, "--format", "table")
    assert done.code == 0 and "hub correction: none, " in done.out and "compact" not in done.err
    assert hub_corrections.saved("numbered-False") is None
    hub_corrections.path_of("numbered-False").write_bytes(b"?")
    with pytest.raises(EncoderError, match="no hub correction"):
        hub_corrections.saved("numbered-False")
    ended = run_here("build-index", str(photos), "--index", str(tmp_path / "index"), "--workers", "0", "-q")
    assert ended.code == 1 and "delete it" in ended.err and len(ended.err.splitlines()) == 1
    hub_corrections.path_of("numbered-False").unlink()
    assert run_here("build-index", str(photos), "--index", str(tmp_path / "index"), "--workers", "0", "-q").code == 0


def test_which_searches_are_corrected(
    photos: Path, tmp_path: Path, site: Callable[[bool], None], run_here: Run
) -> None:
    """Texts for pictures are; pictures for pictures are not, nor captions; a sum is by the share of its texts."""
    index = ("--index", str(tmp_path / "index"))
    assert run_here("models", "calibrate", "numbered", "--dataset", str(photos), "-q").code == 0
    assert run_here("build-index", str(photos), "--workers", "0", "-q", *index).code == 0
    engine, options = Engine(tmp_path / "index"), SearchOptions(k=PHOTOS)
    with IndexReader.open(tmp_path / "index") as reader:
        numbers = reader.lowered("image")
        assert numbers is not None and len(numbers) == 1
        vectors = reader.blocks("image")[0][0].astype(np.float32)
        paths = [reader.record("image", 0, row)["path"] for row in range(PHOTOS)]
    encoder = engine.encoder

    def check(hits: list[Any], query: np.ndarray, strength: float) -> None:
        query = query / np.linalg.norm(query)
        order = np.argsort(-(vectors @ query + strength * numbers[0]), kind="stable")
        assert [hit.record["path"] for hit in hits] == [paths[row] for row in order]
        scores = [hit.score for hit in hits]
        assert scores == pytest.approx(
            np.minimum(vectors @ query, 1)[order], abs=1e-5
        )  # a score is the cosine, corrected or not
        assert (scores == sorted(scores, reverse=True)) == (strength == 0)

    a, b = encoder.encode_texts(["5 0", "9 1"])
    picture, own = str(photos / "007.png"), encoder.images[7]
    check(engine.query(compose("5 0"), options), a, 1)
    check(engine.query(compose("5 0", plus=["9 1"]), options), a + b, 1)
    check(engine.query(compose("5 0", minus=["9 1"]), options), a - b, 0)
    check(engine.query(compose("5 0", minus=["0.5:9 1"]), options), a - 0.5 * b, 0.5 / 1.5)
    check(engine.query(compose(image=[picture]), options, target="image"), own, 0)
    check(engine.query(compose("5 0", image=[picture]), options), a + own, 0.5)
    captions = [hit.score for hit in engine.query(compose(image=[picture]), options)]
    assert captions == sorted(captions, reverse=True)
    some = engine.query(compose("5 0"), SearchOptions(k=PHOTOS, min_score=0.2))
    everything = engine.query(compose("5 0"), options)
    assert [hit.key for hit in some] == [hit.key for hit in everything if hit.score >= 0.2]
    folded = engine.query(compose("5 0"), SearchOptions(k=20, alike=0.99))
    assert [hit.key for hit in folded] == [hit.key for hit in everything[:20]]
    together = engine.query_many([compose("5 0"), compose("5 0", minus=["9 1"]), compose("9 1")], options)
    assert [[hit.key for hit in one] for one in together] == [
        [hit.key for hit in engine.query(one, options)]
        for one in (compose("5 0"), compose("5 0", minus=["9 1"]), compose("9 1"))
    ]
