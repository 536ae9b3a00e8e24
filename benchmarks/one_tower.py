"""The paper's argument, measured: two towers, one tower over all pairs, and both together.

    python benchmarks/one_tower.py --matcher FOLDER --encoder brivl-mini --data ../shared/data/flickr8k-cn
    python benchmarks/one_tower.py --no-accuracy                  # cost alone; --matcher may be left out then

Accuracy: R@1 of the held-out photos' first captions, text to image and image to text. Among 100 and 500, all
candidates are held out; beyond that, photos that models were trained on stand between them as distractors. "Both"
orders the first N of the towers by the matcher's score + `cosine_weight` · cosine; "one tower" orders everything by its
score alone.

Cost: one text against pictures whose vectors, or region tokens, are already in memory. Vectors are random and scanned
in full (an index takes less), pairs a second come from a sample of pairs, and everything beyond what was run is the
sample's rate times the number of pairs. FLOPs are counted by torch.utils.flop_counter over a query's pass, a
multiplication and an addition being two. UNITER-base has its published sizes and random weights: only its cost can be
measured here.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from brivl_search.corpus.captions import CaptionLine, read_captions  # noqa: E402
from brivl_search.corpus.images import decode, read_file  # noqa: E402
from brivl_search.encoders.base import LoadedEncoder, Origin  # noqa: E402
from brivl_search.encoders.device import has_fast_bf16  # noqa: E402
from brivl_search.encoders.matching import Matcher, load_matcher  # noqa: E402
from brivl_search.encoders.one_tower.config import MatcherConfig  # noqa: E402
from brivl_search.encoders.one_tower.matcher import OneTowerMatcher  # noqa: E402
from brivl_search.encoders.one_tower.model import OneTower, Side  # noqa: E402
from brivl_search.encoders.registry import load_encoder  # noqa: E402

TEXT = "两个穿红衣服的小孩在海边玩"
BOXES, WORDS = 36, 20  # of UNITER's pairs
SCANNED = (100, 1_000, 10_000, 100_000)
SIZES = (100, 1_000, 10_000, 10**6, 10**9)
CHUNK = 64


def seconds(call: Callable[[], Any], rounds: int) -> float:
    """The median of some calls, after one that does not count."""
    call()
    spent = []
    for _ in range(rounds):
        since = time.perf_counter()
        call()
        spent.append(time.perf_counter() - since)
    return statistics.median(spent)


def flops(call: Callable[[], Any]) -> int:
    """Of a call; attention as the products it is made of, which the counter knows on every device."""
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


# What is compared


def held_out(folder: Path, field: str, count: int, most: int) -> list[tuple[str, str]]:
    """Photos and their first captions: the last `count` rows, the held-out ones, then others up to `most`.

    Raises:
        SystemExit: the field has no captions.
    """
    lines = read_captions(str(folder / "captions.jsonl"), [field])
    rows = [(line.image, line.texts[0][1]) for line in lines if isinstance(line, CaptionLine) and line.texts]
    if not rows:
        raise SystemExit(f"{folder / 'captions.jsonl'} has no captions {field!r}: give --captions another field")
    return [*rows[-count:], *rows[:-count]][:most]


def read_pictures(
    encoder: LoadedEncoder, matcher: Matcher, paths: Sequence[str]
) -> tuple[np.ndarray, list[Any], float]:
    """Vectors, what the matcher reads of each picture, and its seconds a picture."""
    vectors, shown, spent = [], [], 0.0
    for at in range(0, len(paths), CHUNK):
        some = list(paths[at : at + CHUNK])
        vectors.append(encoder.encode_images(some))
        found = [decode(read_file(path), matcher.pixels) for path in some]
        origins = [Origin(path, one.width, one.height) for path, one in zip(some, found, strict=True)]
        since = time.perf_counter()
        shown += matcher.pictures(np.stack([one.pixels for one in found]), origins)
        spent += time.perf_counter() - since
        say(f"pictures: {len(shown)} of {len(paths)}")
    return np.concatenate(vectors).astype(np.float32), shown, spent / len(paths)


def tables(
    matcher: Matcher, texts: Sequence[str], shown: Sequence[Any], queries: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """The matcher's score of every pair: of the first texts with all pictures, of the first pictures with all texts,
    each float32 (queries, candidates); and pairs a second."""
    since = time.perf_counter()
    by_text = []
    for at, text in enumerate(texts[:queries]):
        by_text.append(matcher.scores([text] * len(shown), shown))
        say(f"one tower: text {at + 1} of {queries}")
    by_image = []
    for at, picture in enumerate(shown[:queries]):
        by_image.append(matcher.scores(texts, [picture] * len(texts)))
        say(f"one tower: picture {at + 1} of {queries}")
    pairs = 2 * queries * len(shown)
    return np.stack(by_text), np.stack(by_image), pairs / (time.perf_counter() - since)


# Accuracy


def recall(scores: np.ndarray) -> float:
    """R@1 in percent; the partner of query i is candidate i, and of equal scores the first counts as the best."""
    return 100 * float((scores.argmax(1) == np.arange(len(scores))).mean())


def reordered(cosines: np.ndarray, scores: np.ndarray, top: int, weight: float) -> float:
    """R@1 where the first `top` by the cosine are ordered by score + weight · cosine."""
    best = np.argsort(-cosines, axis=1, kind="stable")[:, :top]
    mixed = np.take_along_axis(scores + weight * cosines, best, 1)
    first = np.take_along_axis(best, mixed.argmax(1)[:, None], 1)[:, 0]
    return 100 * float((first == np.arange(len(cosines))).mean())


def accuracy(
    cosines: tuple[np.ndarray, np.ndarray],
    scores: tuple[np.ndarray, np.ndarray],
    args: argparse.Namespace,
    weight: float,
) -> list[dict[str, Any]]:
    """R@1 for each number of candidates: what a row says holds for as many queries as it names."""
    found = []
    for count in args.among:
        queries = min(args.queries, count, len(cosines[0]))
        row: dict[str, Any] = {"candidates": count, "queries": queries}
        for way, cosine, score in zip(("text_to_image", "image_to_text"), cosines, scores, strict=True):
            cosine, score = cosine[:queries, :count], score[:queries, :count]
            both = {str(top): round(reordered(cosine, score, top, weight), 1) for top in args.tops if top < count}
            row[way] = {
                "two_towers": round(recall(cosine), 1), "one_tower": round(recall(score), 1), "both": both,
                "both_all_pairs": round(recall(score + weight * cosine), 1),
            }  # fmt: skip
        found.append(row)
    return found


# Cost


def towers_cost(encoder: LoadedEncoder) -> dict[str, Any]:
    """Seconds of reading a text, and of a full scan with its 10 best; the slope is that of the largest scan."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((SCANNED[-1], encoder.dim)).astype(np.float32)
    query = vectors[0].copy()

    def scan(count: int) -> np.ndarray:
        found: np.ndarray = np.argpartition(vectors[:count] @ query, -10)[-10:]
        return found

    text = seconds(lambda: encoder.encode_texts([TEXT]), 9)
    scans = {str(count): seconds(lambda count=count: scan(count), 9) for count in SCANNED}  # type: ignore[misc]
    return {
        "text_s": text, "scan_s": scans, "scan_s_per_vector": scans[str(SCANNED[-1])] / SCANNED[-1],
        "flops_a_pair": 2 * encoder.dim,
    }  # fmt: skip


def matcher_cost(matcher: Matcher, text: str, shown: Sequence[Any], picture_s: float) -> dict[str, Any]:
    """Of a query's pass over a sample of pictures; FLOPs where the matcher is ours."""
    spent = seconds(lambda: matcher.scores([text] * len(shown), shown), 5)
    found: dict[str, Any] = {
        "name": matcher.name, "sample_pairs": len(shown), "pairs_per_s": len(shown) / spent, "picture_s": picture_s
    }  # fmt: skip
    if isinstance(matcher, OneTowerMatcher):
        total = flops(lambda: matcher.scores([text] * len(shown), shown))
        found |= {"flops_a_pair": total / len(shown), "parameters": sum(p.numel() for p in matcher.model.parameters())}
    return found


def uniter_cost(pairs: int, rounds: int, config: MatcherConfig | None = None) -> dict[str, Any]:
    """UNITER-base: 12 × 768, all tokens of a text and of 36 boxes see all; random weights.

    Args:
        pairs: of a text and so many pictures, in one pass.
        rounds: how often that is timed.
        config: other sizes.
    """
    torch.manual_seed(0)
    model, fast = OneTower(config or MatcherConfig()).eval(), has_fast_bf16(torch.device("cpu"))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=fast):
        spent = seconds(one_text(model, pairs), rounds)
    counted = flops(one_text(model.to("meta"), pairs))  # shapes alone: nothing is computed
    return {
        "name": "UNITER-base, random weights", "sample_pairs": pairs, "pairs_per_s": pairs / spent,
        "flops_a_pair": counted / pairs, "parameters": sum(p.numel() for p in model.parameters()),
        "precision": "bfloat16" if fast else "float32",
    }  # fmt: skip


def one_text(model: OneTower, pairs: int) -> Callable[[], torch.Tensor]:
    """The pass of one text with so many pictures, all random, where the model is."""
    on, width = model.match.weight.device, model.config.width
    texts = Side(torch.rand(1, WORDS, width, device=on), torch.ones(1, WORDS, dtype=torch.bool, device=on))
    features = torch.rand(pairs, BOXES, model.config.region_size, device=on)
    boxes, own = torch.rand(BOXES, 4, device=on), torch.arange(pairs, device=on)
    return lambda: model.logits(texts, model.images(features, boxes), torch.zeros_like(own), own)


def costs(towers: dict[str, Any], towers_of: Sequence[dict[str, Any]], tops: Sequence[int]) -> list[dict[str, Any]]:
    """Seconds of a query for every number of photos; `run` says which of them were run, and not multiplied."""

    def scan(count: int) -> float:
        known = towers["scan_s"].get(str(count))
        return float(towers["text_s"] + (known if known is not None else count * towers["scan_s_per_vector"]))

    rows = [{"what": "two towers", "seconds": {str(n): scan(n) for n in SIZES}, "flops_a_pair": towers["flops_a_pair"]}]
    for one in towers_of:
        rows.append(
            {
                "what": f"one tower over all pairs: {one['name']}",
                "seconds": {str(n): n / one["pairs_per_s"] for n in SIZES},
                "flops_a_pair": one.get("flops_a_pair"),
            }
        )
    for one in towers_of:
        for top in tops:
            both = {str(n): scan(n) + min(top, n) / one["pairs_per_s"] for n in SIZES}
            rows.append({"what": f"both, top {top}: {one['name']}", "seconds": both, "flops_a_pair": None})
    return rows


# Output


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def duration(value: float) -> str:
    """Seconds in the unit that a person would use."""
    for unit, size in (("years", 365.25 * 86_400), ("days", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        if value >= 2 * size or (unit == "s" and value >= 1):
            return f"{value / size:,.1f} {unit}"
    return f"{value * 1e3:.1f} ms"


def show(result: dict[str, Any]) -> None:
    """Markdown tables on stdout."""
    print(f"| seconds of a text query | FLOPs a pair | {' | '.join(f'{n:,} photos' for n in SIZES)} |")
    print("|---|---|" + "---|" * len(SIZES))
    for row in result["cost"]:
        each = " | ".join(duration(row["seconds"][str(n)]) for n in SIZES)
        count = "" if row["flops_a_pair"] is None else f"{row['flops_a_pair']:.2e}"
        print(f"| {row['what']} | {count} | {each} |")
    for one in result["one_towers"]:
        print(f"\n{one['name']}: {one['pairs_per_s']:,.0f} pairs/s on {one['sample_pairs']} pairs")
    if not result["accuracy"]:
        return
    tops = list(result["accuracy"][-1]["text_to_image"]["both"])
    print(
        "\n| R@1 | two towers | one tower, all pairs | " + " | ".join(f"both, top {n}" for n in tops) + " | both, all |"
    )
    print("|---|---|---|" + "---|" * (len(tops) + 1))
    for row in result["accuracy"]:
        for way, name in (("text_to_image", "text → image"), ("image_to_text", "image → text")):
            one = row[way]
            both = " | ".join(str(one["both"].get(n, "–")) for n in tops)
            print(
                f"| {name}, {row['queries']} queries among {row['candidates']:,} | {one['two_towers']} | "
                f"{one['one_tower']} | {both} | {one['both_all_pairs']} |"
            )


def plot(result: dict[str, Any], image: Path) -> None:
    """Seconds of a query by photos, and R@1 by how many are re-ordered."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), constrained_layout=True)
    for row in result["cost"]:
        if "top" in row["what"] and "top 32:" not in row["what"]:
            continue
        left.plot(SIZES, [row["seconds"][str(n)] for n in SIZES], marker="o", label=row["what"])
    left.set(xscale="log", yscale="log", xlabel="photos", ylabel="seconds of a text query", title="cost")
    left.axvspan(20_000, SIZES[-1], alpha=0.08, color="black")
    left.text(30_000, left.get_ylim()[0] * 2, "beyond: by multiplication", fontsize=8)
    left.legend(fontsize=7)
    for row in result["accuracy"]:
        for way, name in (("text_to_image", "text → image"), ("image_to_text", "image → text")):
            both = {0: row[way]["two_towers"], **{int(n): value for n, value in row[way]["both"].items()}}
            right.plot(list(both), list(both.values()), marker="o", label=f"{name}, among {row['candidates']:,}")
    right.set(xlabel="re-ordered hits (0: two towers alone)", ylabel="R@1, %", title="accuracy")
    if result["accuracy"]:
        right.legend(fontsize=7)
    figure.savefig(image, dpi=110)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {"type": lambda text: [int(part) for part in text.split(",")], "metavar": "N,N"}
    parser.add_argument("--matcher", help="a folder, a bundled one, or hf:ORG/NAME")
    parser.add_argument("--encoder", default="brivl-mini")
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data" / "flickr8k-cn")
    parser.add_argument("--captions", default="zh_mt_google", help="field of the captions")
    parser.add_argument("--held-out", type=int, default=500, help="the last so many photos, that no model has seen")
    parser.add_argument("--among", default=[100, 500, 1_000], help="candidates of the accuracy", **numbers)  # type: ignore[arg-type]
    parser.add_argument("--queries", type=int, default=200, help="of each direction; held-out photos and captions")
    parser.add_argument("--tops", default=[8, 16, 32, 64, 128], help="hits that are re-ordered", **numbers)  # type: ignore[arg-type]
    parser.add_argument("--sample", type=int, default=256, help="pairs whose time is measured")
    parser.add_argument("--uniter-pairs", type=int, default=16, help="the same of UNITER-base; 0: without it")
    parser.add_argument("--threads", type=int, help="of torch; by default all cores")
    parser.add_argument("--no-accuracy", action="store_true", help="cost alone")
    parser.add_argument("--out", type=Path, default=Path("one_tower.json"))
    parser.add_argument("--plot", type=Path, help="a PNG")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.queries > args.held_out:
        parser.error(f"--queries {args.queries}: only held-out photos ask, and there are {args.held_out}")
    encoder = load_encoder(args.encoder)
    result: dict[str, Any] = {"encoder": args.encoder, "one_towers": [], "accuracy": []}
    if args.matcher:
        matcher = load_matcher(args.matcher, encoder)
        rows = held_out(args.data, args.captions, args.held_out, args.sample if args.no_accuracy else max(args.among))
        args.among = [count for count in args.among if count <= len(rows)]
        texts = [text for _, text in rows]
        vectors, shown, picture_s = read_pictures(encoder, matcher, [path for path, _ in rows])
        result["one_towers"].append(matcher_cost(matcher, texts[0], shown[: args.sample], picture_s))
        if not args.no_accuracy:
            asked = min(args.queries, len(rows))
            said = encoder.encode_texts(texts).astype(np.float32)
            cosines = said[:asked] @ vectors.T, vectors[:asked] @ said.T
            by_text, by_image, speed = tables(matcher, texts, shown, asked)
            result["accuracy"] = accuracy(cosines, (by_text, by_image), args, matcher.cosine_weight)
            result |= {"all_pairs_per_s": speed, "captions": args.captions, "held_out": args.held_out}
    if args.uniter_pairs:
        result["one_towers"].append(uniter_cost(args.uniter_pairs, 3))
    result["two_towers"] = towers_cost(encoder)
    result["cost"] = costs(result["two_towers"], result["one_towers"], args.tops)
    result["machine"] = {"threads": torch.get_num_threads(), "load": list(os.getloadavg())}
    args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    show(result)
    if args.plot:
        plot(result, args.plot)


if __name__ == "__main__":
    main()
