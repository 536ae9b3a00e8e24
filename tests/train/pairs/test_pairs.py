"""`train.pairs.prepare` on a crawl the test makes: every rule removes what it names, and a kill changes nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stdnum.luhn import is_valid as luhn

from brivl_search.errors import UsageError
from tests.support.folders import REPO
from tests.support.stub import environment
from tests.support.tiny import make_checkpoint
from train.pairs import prepare as prepare_pairs
from train.pairs.images import HASH_SIDE, MASK, perceptual_hash, probes, to_grey
from train.pairs.prepare import prepare
from train.pairs.privacy import has_card_number, has_id_number, is_id_number, personal_data
from train.pairs.rules import Rules, read_rules
from train.pairs.score import score
from train.pairs.sources import Source
from train.pairs.store import PairStore
from train.pairs.texts import TextJudge, TextRules

# Numbers of nobody: made to pass the checks. The id's place code is none that was ever given out.
ID = "99010119900307001" + "2"
CARD = "6222020000000000004"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("有事打13912345678找小王", "mobile number"),
        ("电话 +86 139-1234-5678 欢迎来电", "mobile number"),
        ("联系１３９１２３４５６７８面谈", "mobile number"),
        ("call 010-12345678 for tickets", "landline number"),
        ("写信到 zhang.san+x@mail.example.com.cn 报名", "e-mail address"),
        ("邮箱zhang＠example．com", "e-mail address"),
        ("加微信：abc_12345 看更多", "messenger account"),
        ("QQ群123456789", "messenger account"),
        ("车牌京A·12345的车主", "number plate"),
        ("订单 13912345678901 号", ""),
        ("北京冬奥会20220204开幕", ""),
        ("a 1080p picture of 12 dogs in 2022", ""),
        ("苏州园林的春天，共有100张照片", ""),
        ("微信红包封面上线", ""),
        ("圆周率3.14159265358979", ""),
    ],
)
def test_personal_data_is_seen_and_other_numbers_are_not(text: str, kind: str) -> None:
    assert personal_data(text) == kind


def test_numbers_with_a_check_digit_must_pass_it() -> None:
    good = next(f"{ID[:17]}{last}" for last in "0123456789X" if is_id_number(f"{ID[:17]}{last}"))
    assert personal_data(f"身份证{good}号") == "id number"
    assert personal_data(f"身份证{good.lower()[:6]} {good[6:14]} {good[14:]}") == "id number"
    assert sum(is_id_number(f"{good[:17]}{last}") for last in "0123456789X") == 1
    assert not is_id_number("990101" + "19901399" + good[14:])  # the 99th of a 13th month
    card = next(f"{CARD[:18]}{last}" for last in "0123456789" if luhn(f"{CARD[:18]}{last}"))
    assert personal_data(f"卡号 {card[:4]} {card[4:8]} {card[8:12]} {card[12:]}") == "bank card"
    assert sum(luhn(f"{CARD[:18]}{last}") for last in "0123456789") == 1
    assert luhn("4111111111111111") and not luhn("4111111111111112")  # the well-known test number


@pytest.mark.parametrize(
    ("text", "cleaned", "language", "rule"),
    [
        ("<p>一只&nbsp;狗在 草地上&lt;跑</p>", "一只 狗在 草地上<跑", "zh", ""),
        ("A dog runs, see https://a.example/x?y=1 in the snow", "A dog runs, see in the snow", "en", ""),
        ("NBA总决赛：勇士队夺冠", None, "zh", ""),
        ("Black dog chasing brown dog through snow", None, "en", ""),
        ("A woman has a profile photo taken", None, "en", ""),
        ("Red bus", None, "", "too short"),
        ("小狗", None, "", "too short"),
        ("好" + "的一天真美" * 60, None, "", "too long"),
        ("点击查看大图", None, "", "boilerplate"),
        ("本文图片来源于网络", None, "", "boilerplate"),
        ("IMG_20210304_123456.jpg", None, "", "boilerplate"),
        ("Copyright 2020 X. All rights reserved", None, "", "boilerplate"),
        ("这是一张照片こんにちはさようなら", None, "", "neither Chinese nor English"),
        ("ein Hund läuft über die grüne Wiese", None, "", "neither Chinese nor English"),
        ("le chien court dans les champs verts", None, "", "neither Chinese nor English"),
        ("собака бежит по снегу", None, "", "neither Chinese nor English"),
        ("¥199.00 (8.5折) 12345-678", None, "", "mostly symbols"),
        ("★ ☆ 2021-03-04", None, "", "mostly symbols"),
        ("哈哈哈哈哈哈哈哈哈哈", None, "", "repetitive"),
        ("the hot sale of the hot sale of the hot sale of the hot sale of the hot sale", None, "", "repetitive"),
        ("   \u200b ", "", "", "no text"),
        ("打13912345678", None, "", "personal data: mobile number"),
    ],
)
def test_texts_are_cleaned_told_apart_and_judged(text: str, cleaned: str | None, language: str, rule: str) -> None:
    found = TextJudge(TextRules()).judge(text)
    assert found[1:] == (language, rule)
    assert cleaned is None or found[0] == cleaned


def photo(seed: int, width: int = 240, height: int = 180) -> Image.Image:
    """Soft blobs, as different from one another as photos are."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def code_of(image: Image.Image) -> int:
    return perceptual_hash(to_grey(np.asarray(image.convert("RGB").resize((HASH_SIDE, HASH_SIDE)))))


def test_copies_have_near_hashes_and_other_photos_far_ones(tmp_path: Path) -> None:
    far = []
    for seed in range(20):
        image = photo(seed)
        code = code_of(image)
        image.save(tmp_path / "copy.jpg", quality=40)
        with Image.open(tmp_path / "copy.jpg") as copy:
            assert (code ^ code_of(copy.resize((130, 97)))).bit_count() <= 3
        assert (code ^ code_of(image.point(lambda v: int(v * 0.9 + 10)))).bit_count() <= 3
        far.append((code ^ code_of(photo(seed + 100))).bit_count())
    assert min(far) > 12


def test_hash_is_the_phash_of_imagehash() -> None:
    """The same bits of the same 32 × 32 grey picture. Of a photo nearly the same: ImageHash shrinks the grey photo, we
    take the grey of the shrunk one, which is decoded and shrunk in one go."""
    imagehash = pytest.importorskip("imagehash")
    rng = np.random.default_rng(0)
    for seed in range(50):
        grey = rng.integers(0, 256, (HASH_SIDE, HASH_SIDE), dtype=np.uint8)
        assert perceptual_hash(grey.astype(np.float32)) == int(str(imagehash.phash(Image.fromarray(grey))), 16)
        assert (code_of(photo(seed)) ^ int(str(imagehash.phash(photo(seed))), 16)).bit_count() <= 3


@pytest.mark.parametrize("distance", [0, 3, 4, 7])
def test_look_ups_find_every_hash_within_the_distance_and_no_other(tmp_path: Path, distance: int) -> None:
    rng = np.random.default_rng(distance)
    store = PairStore(tmp_path / "s.sqlite", "x")
    codes = [int(code) for code in rng.integers(0, 1 << 64, 300, dtype=np.uint64)]
    for code in codes:
        store.add_picture(code)
    assert len(probes(codes[0], distance)) == (4 if distance < 4 else 68)
    for code in codes[:60]:
        for flips in (distance, distance + 1):
            near = code
            for bit in rng.choice(64, flips, replace=False):
                near ^= 1 << int(bit)
            true = any(((near ^ other) & MASK).bit_count() <= distance for other in codes)
            assert store.near_duplicate(near, distance) is true
    assert store.near_duplicate(codes[0], distance)
    store.close()


@pytest.fixture
def crawl(tmp_path: Path) -> list[Source]:
    """Two sources with one of everything."""
    news, baike = tmp_path / "news", tmp_path / "baike"
    news.mkdir(), baike.mkdir()
    for number in range(4):
        photo(number).save(news / f"{number}.jpg")
    photo(0).resize((480, 360)).save(baike / "again.png")  # a near-duplicate in another source
    photo(10).save(baike / "own.png")
    Image.new("RGB", (300, 300), "white").save(news / "white.png")
    photo(11, 60, 200).save(news / "narrow.png")
    photo(12, 1200, 120).save(news / "banner.png")
    (news / "broken.jpg").write_bytes((news / "1.jpg").read_bytes()[:600])
    texts = ["一只狗在雪地里奔跑", "两个孩子在海边玩耍", "A man rides a horse on the beach", "夕阳下的城市天际线"]
    rows: list[Any] = [
        {"path": f"{n}.jpg", "title": text, "text": "点击查看大图", "url": f"https://x.example/{n}"}
        for n, text in enumerate(texts)
    ]
    rows += [{"path": name, "title": "湖边的一座老房子"} for name in ("white.png", "narrow.png", "banner.png")]
    rows += [{"path": "broken.jpg", "text": "山顶上的云海"}, {"path": "absent.jpg", "text": "山顶上的云海"}]
    rows += [
        {"url": "https://x.example/only", "text": "没有图片文件的一条"},
        {"path": "0.jpg", "text": "同一张图片又来一次"},
    ]
    rows += [{"path": "1.jpg", "text": "电话13912345678联系我"}, ["no object"]]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows] + ["not json", ""]
    (news / "records.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = [
        {"image": "again.png", "text": ["别处来的同一张图片"]},
        {"image": "own.png", "title": "长城的秋天", "text": ["长城的秋天", "The Great Wall of China in autumn"]},
    ]
    (baike / "records.jsonl").write_text(
        "\n".join(json.dumps(row) for row in rows), encoding="utf-8"
    )  # no last newline
    return [Source(folder.name, folder / "records.jsonl", folder) for folder in (news, baike)]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_rule_removes_what_it_names(crawl: list[Source], tmp_path: Path) -> None:
    report = prepare(crawl, tmp_path / "out", Rules(), workers=0)
    rows = lines_of(tmp_path / "out" / "pairs.jsonl")
    assert [Path(row["image"]).name for row in rows] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "own.png"]
    assert rows[0] == {
        "image": str(crawl[0].folder / "0.jpg"),
        "zh": ["一只狗在雪地里奔跑"],
        "source": "news",
        "url": "https://x.example/0",
        "width": 240,
        "height": 180,
    }
    assert rows[2]["en"] == ["A man rides a horse on the beach"] and "zh" not in rows[2]
    assert (rows[4]["zh"], rows[4]["en"]) == (["长城的秋天"], ["The Great Wall of China in autumn"])
    assert report["sources"]["news"] == {
        "records": 14, "kept": 4, "kept with zh": 3, "kept with en": 1, "bad line": 2, "no image file": 1,
        "image: empty": 1, "image: too small": 1, "image: extreme aspect ratio": 1, "image: truncated": 1,
        "image: file vanished": 1, "same image again": 1, "text: personal data: mobile number": 1,
        "one text: boilerplate": 4,
    }  # fmt: skip
    assert report["sources"]["baike"]["image: near-duplicate"] == 1
    assert report["examples"]["image: truncated"] == [str(crawl[0].folder / "broken.jpg")]
    assert "13912345678" not in json.dumps(report["examples"])  # personal data is not spread by the report
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8")) == json.loads(json.dumps(report))
    # What is done is not done again, and the folder takes no other rules.
    assert prepare(crawl, tmp_path / "out", Rules(), workers=0) == report
    with pytest.raises(UsageError, match="other sources or rules"):
        prepare(crawl, tmp_path / "out", Rules(max_repeats=3), workers=0)


def test_thresholds_are_changed_by_name(crawl: list[Source], tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text('max_repeats = 1\n[text]\nmin_zh = 6\nboilerplate = ["雪地"]\n[fields]\ntexts = ["title"]\n')
    rules = read_rules(file, ["image.distance=-1", "image.min_side=50"], images=True)
    assert rules.text.min_zh == 6 and rules.image.distance == -1 and rules.fields.texts == ("title",)
    report = prepare(crawl, tmp_path / "out", rules, workers=0)
    kept = [Path(row["image"]).name for row in lines_of(tmp_path / "out" / "pairs.jsonl")]
    assert kept == ["1.jpg", "2.jpg", "3.jpg", "narrow.png"]
    assert report["total"]["text: boilerplate"] == 1
    assert report["total"]["text: too short"] == 1
    for change, message in (
        ("image.min_sides=3", "no rule image.min_sides"),
        ('text.min_zh="four"', "must be like 4"),
        ("image.distance=9", "-1 (off) to 7"),
        ('text.boilerplate=["("]', "no regular expression"),
        ("bands=3", "the rules have no bands"),
    ):
        with pytest.raises(UsageError) as error:
            read_rules(None, [change], images=True)
        assert message in str(error.value)


def test_a_text_that_comes_too_often_goes(tmp_path: Path) -> None:
    rows = [
        {"url": f"https://x.example/{n}", "text": "每日一图欣赏", "title": f"第{n}张照片的说明文字"} for n in range(6)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    source = [Source("a", tmp_path / "a.jsonl", tmp_path)]
    report = prepare(source, tmp_path / "out", Rules(max_repeats=2, images=False), workers=0)
    kept = lines_of(tmp_path / "out" / "pairs.jsonl")
    assert [len(row["zh"]) for row in kept] == [2, 2, 1, 1, 1, 1]
    assert report["total"]["one text: repeated"] == 4


def big_crawl(folder: Path, count: int) -> list[Source]:
    for number in range(24):
        photo(number, 120, 120).save(folder / f"{number}.jpg")
    with (folder / "a.jsonl").open("w", encoding="utf-8") as lines:
        for n in range(count):
            text = ["一只狗在雪地里奔跑", "小狗", "打13912345678", f"第{n}号游客在故宫门前留影"][n % 4]
            lines.write(json.dumps({"path": f"{n % 40}.jpg", "text": text + "啊" * (n % 3), "n": n}) + "\n")
    return [Source("a", folder / "a.jsonl", folder)]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path, workers: int) -> None:
    class Killed(BaseException):
        pass

    sources = big_crawl(tmp_path, 1600)
    whole = prepare(sources, tmp_path / "whole", Rules(max_repeats=3), workers=0)
    stops = iter([2, 3])

    def stop(done: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Killed

    for left in stops:  # noqa: B007 - counted down by `stop`
        with pytest.raises(Killed):
            prepare(sources, tmp_path / "parts", Rules(max_repeats=3), workers=workers, progress=stop, commit_every=200)
        partial = tmp_path / "parts" / "pairs.jsonl.partial"
        with partial.open("ab") as handle:  # written after the commit, and torn by the kill
            handle.write(b'{"image": "torn')
    parts = prepare(sources, tmp_path / "parts", Rules(max_repeats=3), workers=workers, commit_every=200)
    assert parts == whole
    assert (tmp_path / "parts" / "pairs.jsonl").read_bytes() == (tmp_path / "whole" / "pairs.jsonl").read_bytes()
    assert parts["total"]["records"] == 1600


def test_kill_9_changes_nothing(tmp_path: Path) -> None:
    sources = big_crawl(tmp_path, 12_000)
    prepare(sources, tmp_path / "whole", Rules(images=False), workers=0)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "train.pairs.prepare", str(out), "--source", f"a={sources[0].file}", "--no-images"]
    more: dict[str, Any] = {"cwd": REPO, "env": environment(), "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen([*command, "--workers", "1"], **more)
    deadline = time.monotonic() + 60
    partial = out / "pairs.jsonl.partial"
    while not (partial.exists() and partial.stat().st_size) and time.monotonic() < deadline:  # the first commit
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert partial.exists()
    done = subprocess.run([*command, "--workers", "0"], **more)
    assert done.returncode == 0, done.stderr
    for name in ("pairs.jsonl", "report.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_scores_rank_and_drop_nothing(crawl: list[Source], tmp_path: Path) -> None:
    prepare(crawl, tmp_path / "out", Rules(), workers=0)
    pairs, scored = tmp_path / "out" / "pairs.jsonl", tmp_path / "out" / "scored.jsonl"
    (crawl[0].folder / "3.jpg").unlink()  # gone since
    encoder = str(make_checkpoint(tmp_path / "tiny"))
    assert score(pairs, scored, encoder, workers=0) == 5
    rows = lines_of(scored)
    assert [{k: v for k, v in row.items() if k != "score"} for row in rows] == lines_of(pairs)
    assert rows[3]["score"] is None and all(-1 <= row["score"] <= 1 for row in rows if row["score"] is not None)
    assert len({row["score"] for row in rows}) == 5
    partial = next(iter(tmp_path.glob("out/*.partial")), None)
    assert partial is None
    # Cut off in the middle of the third line, it goes on there.
    whole = scored.read_bytes()
    from brivl_search.encoders import load_encoder

    half = b"".join(whole.splitlines(keepends=True)[:2]) + whole.splitlines()[2][:20]
    scored.with_name(f"scored.jsonl.{load_encoder(encoder).fingerprint[:12]}.partial").write_bytes(half)
    score(pairs, scored, encoder, workers=0)
    again = lines_of(scored)
    assert [row["image"] for row in again] == [row["image"] for row in rows]
    np.testing.assert_allclose([r["score"] for r in again[:3]], [r["score"] for r in rows[:3]], atol=1e-3)


def test_mistakes_of_the_command_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--source", f"a={tmp_path / 'absent.jsonl'}"], "no such file"),
        (["--source", "a=", "--no-images"], "NAME=FILE"),
        (["--source", "a=x", "--source", "a=y"], "same name"),
        (["--source", "a=x", "--rules", str(tmp_path / "absent.toml")], "--rules"),
    ):
        with pytest.raises(SystemExit) as exit_:
            prepare_pairs.main([str(tmp_path / "out"), *arguments])
        assert exit_.value.code == 2
        assert message in capsys.readouterr().err


def _checked_by_hand(number: str) -> bool:
    """The rule of GB 11643 (MOD 11-2), written out."""
    try:
        born = date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    total = sum(int(digit) * weight for digit, weight in zip(number[:17], weights, strict=True))
    return 1900 <= born.year <= 2100 and "10X98765432"[total % 11] == number[17].upper()


def test_numbers_are_judged_as_the_standards_say() -> None:
    """python-stdnum's check digits against the rules written out, on random numbers and on all last places."""
    rng = random.Random(0)
    for _ in range(2000):
        born = f"{rng.randrange(1880, 2120)}{rng.randrange(1, 14):02}{rng.randrange(1, 33):02}"
        number = f"{rng.randrange(110000, 660000)}{born}{rng.randrange(1000):03}"
        for last in "0123456789X":
            assert is_id_number(number + last) == _checked_by_hand(number + last)
        assert sum(is_id_number(number + last) for last in "0123456789X") <= 1
    for _ in range(2000):
        card = "4" + "".join(str(rng.randrange(10)) for _ in range(14))
        doubled = [2 * int(digit) for digit in card[::-2]]
        total = sum(d - 9 * (d > 9) for d in doubled) + sum(map(int, card[-2::-2]))
        assert [last for last in "0123456789" if has_card_number(card + last)] == [str(-total % 10)]
    assert has_card_number("卡号 4111 1111-1111 1111") and not has_card_number("4111 1111 1111 1112")
    assert has_id_number("110105\u168019491231\u1680002X")  # any space between the groups, and any script's digits
    assert has_card_number("4111 1111 1111 \u0661\u0661\u0661\u0661")
    assert has_id_number("110105 19491231 002X") and not has_id_number("110105194912310021")
