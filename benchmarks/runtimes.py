"""Runtimes on a plain CPU: whole `build-index` runs beside the loops that other tools run, in turns.

    python benchmarks/runtimes.py                                # everything, about ten minutes on two idle cores
    python benchmarks/runtimes.py --only clip-b32 --photos DIR --limit 200 --rounds 3 --json
    python benchmarks/runtimes.py --encoder hf:ORG/NAME          # a model of your own in the place of random weights

Encoders: CLIP ViT-B/32 and Chinese-CLIP B/16 of the published sizes with random weights, and brivl-mini.

    onnx loop      one process: decode, resize, normalise, ONNX Runtime in float32, batches of 8 (rclip's way)
    transformers   the same with the model of transformers in float32
    torch          build-index --runtime torch: bfloat16 where the CPU has it (before there were exports)
    others         build-index with the runtime and precision named

Rates are pictures a second from the first picture to the last vector, models loaded. Memory is the largest resident
set of the main process. Exports are made before; how long that took is told. Of a query, seconds waited and of CPU (the
latter tell more while other work runs), the best of five counts. Bars: the best of ours ≥ 2.5 × the onnx
loop and ≥ 3 × transformers; brivl-mini ≥ 1.5 × torch; a text query ≤ 0.7 s; ≤ 0.8 GB for ViT-B/32.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from processes import as_installed  # noqa: E402

from brivl_search.encoders.cpu import cpu_name  # noqa: E402

PHOTOS = REPOSITORY.parent / "shared" / "data" / "flickr8k-cn" / "images"
SIZES = ("clip-b32", "chinese-clip-b16")
WAYS = (("torch", "auto"), ("onnx", "fp32"), ("onnx", "int8"), ("openvino", "fp32"), ("openvino", "bf16"))
MINI_WAYS = (("torch", "auto"), ("onnx", "fp32"), ("openvino", "bf16"), ("openvino", "int8"))
LOOP_BATCH = 8
_QUERIES = 5


@dataclass
class Runs:
    """What the runs of one way gave."""

    rates: list[float] = field(default_factory=list)
    memory: float = 0.0

    @property
    def rate(self) -> float:
        return statistics.median(self.rates) if self.rates else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "rate": round(self.rate, 1),
            "rates": [round(one, 1) for one in self.rates],
            "gb": round(self.memory, 2),
        }


def make_model(size: str, folder: Path) -> None:
    """A model of the published size with random weights, a small vocabulary and its image processor."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"一只在草地上的狗雪里", "a", "dog", "on", "grass"]
    made = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    model: Any
    if size == "clip-b32":
        model = transformers.CLIPModel(
            transformers.CLIPConfig(vision_config={"patch_size": 32}, text_config={"eos_token_id": 3})
        )
        transformers.CLIPImageProcessor().save_pretrained(folder)
    else:
        text, vision = {"vocab_size": 21128}, {"patch_size": 16}
        model = transformers.ChineseCLIPModel(transformers.ChineseCLIPConfig(text_config=text, vision_config=vision))
        transformers.ChineseCLIPImageProcessor(size={"height": 224, "width": 224}).save_pretrained(folder)
    model.save_pretrained(folder)


def loop(kind: str, encoder: str, photos: Sequence[str]) -> float:
    """Pictures a second of a plain loop in this process."""
    import numpy as np

    from brivl_search.corpus.images import load_pixels
    from brivl_search.encoders.registry import load_encoder
    from brivl_search.encoders.runtimes import store
    from brivl_search.encoders.runtimes.choice import Choice

    loaded: Any = load_encoder(encoder, runtime="torch", precision="fp32", device="cpu")
    facts, spec = loaded.facts, loaded.pixels
    mean, std = np.float32(facts.mean), np.float32(facts.std)
    if kind == "onnx":
        import onnxruntime

        # The same graph; its first node takes uint8 and normalises, which costs as much as doing it in NumPy.
        path = store.place(loaded.fingerprint, "image", Choice("onnx", "fp32")) / "model.onnx"
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

        def run(batch: Any) -> Any:
            return session.run(None, {"pixels": batch})[0]
    else:
        import torch

        tower = loaded.image_tower

        def run(batch: Any) -> Any:
            normal = ((batch - mean) / std).transpose(0, 3, 1, 2)
            with torch.inference_mode():
                return tower.get_image_features(pixel_values=torch.from_numpy(np.ascontiguousarray(normal)))

    run(np.zeros((LOOP_BATCH, spec.size, spec.size, 3), np.uint8))
    start = time.perf_counter()
    for at in range(0, len(photos), LOOP_BATCH):
        run(np.stack([load_pixels(path, spec) for path in photos[at : at + LOOP_BATCH]]))
    return len(photos) / (time.perf_counter() - start)


def child(arguments: Sequence[str]) -> tuple[str, float, float]:
    """What a process wrote on stderr, its largest resident set in GB, its seconds of CPU (user and system)."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([sys.executable, *arguments], stdout=said, stderr=said, env=as_installed())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read()
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {text[-500:]}")
    return text, usage.ru_maxrss / 1e6, usage.ru_utime + usage.ru_stime


def build(encoder: str, photos: Path, work: Path, runtime: str, precision: str) -> tuple[float, float]:
    """Pictures a second and GB of a whole `build-index`."""
    index = work / "index"
    shutil.rmtree(index, ignore_errors=True)
    verb = ["-m", "brivl_search", "build-index", str(photos), "-i", str(index), "--encoder", encoder]
    text, memory, _ = child([*verb, "--runtime", runtime, "--precision", precision])
    found = re.search(r"([\d.,]+) images/s", text)
    if found is None:
        raise RuntimeError(f"no rate in {text[-300:]}")
    return float(found[1].replace(",", "")), memory


def query_seconds(index: Path, rounds: int, runtime: str) -> dict[str, list[float]]:
    """Of a text query from the shell, caches warm: as waited for (`wall`), and of CPU time, which other work disturbs
    less."""
    found: dict[str, list[float]] = {"wall": [], "cpu": []}
    verb = ["-m", "brivl_search", "query", "一只在草地上的狗", "-i", str(index), "--runtime", runtime]
    for turn in range(rounds + 1):
        start = time.perf_counter()
        *_, cpu = child(verb)
        if turn:
            found["wall"].append(round(time.perf_counter() - start, 2))
            found["cpu"].append(round(cpu, 2))
    return found


def measure(name: str, encoder: str, photos: Path, work: Path, rounds: int) -> dict[str, Any]:
    """All ways of one encoder, in turns."""
    mini = name == "brivl-mini"
    ways = MINI_WAYS if mini else WAYS
    made = {}
    few = work / "few"
    few.mkdir(exist_ok=True)
    for path in sorted(photos.iterdir())[:2]:
        if not (few / path.name).exists():
            (few / path.name).symlink_to(path.resolve())
    for runtime, precision in ways:
        start = time.perf_counter()
        build(encoder, few, work, runtime, precision)
        made[f"{runtime} {precision}"] = round(time.perf_counter() - start, 1)
    runs: dict[str, Runs] = {}
    for _ in range(rounds):
        if not mini:
            for kind in ("onnx", "transformers"):
                text, memory, _ = child([__file__, "--loop", kind, "--encoder", encoder, "--photos", str(photos)])
                one = runs.setdefault(f"{kind} loop" if kind == "onnx" else kind, Runs())
                one.rates.append(float(text.strip().splitlines()[-1]))
                one.memory = max(one.memory, memory)
        for runtime, precision in ways:
            rate, memory = build(encoder, photos, work, runtime, precision)
            one = runs.setdefault(f"{runtime} {precision}", Runs())
            one.rates.append(rate)
            one.memory = max(one.memory, memory)
    found: dict[str, Any] = {"first_build_s": made, "ways": {way: one.to_dict() for way, one in runs.items()}}
    if not mini:
        build(encoder, few, work, "onnx", "fp32")
        query_seconds(work / "index", 0, "onnx")  # exports the text tower
        for runtime in ("auto", "torch"):
            found[f"query_{runtime}_s"] = query_seconds(
                work / "index", _QUERIES if runtime == "auto" else rounds, runtime
            )
    return found


def show(name: str, found: dict[str, Any]) -> None:
    base = next(iter(found["ways"].values()))["rate"]
    print(f"\n{name}")
    for way, one in found["ways"].items():
        print(f"  {way:16} {one['rate']:7.1f} /s  {one['rate'] / base:5.2f} x  {one['gb']:.2f} GB  {one['rates']}")
    for key in ("query_auto_s", "query_torch_s", "first_build_s"):
        if key in found:
            print(f"  {key}: {found[key]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=[*SIZES, "brivl-mini"], action="append")
    parser.add_argument("--encoder", help="a model of transformers in the place of those with random weights")
    parser.add_argument("--work", type=Path, help="keep models and exports here")
    parser.add_argument("--loop", choices=["onnx", "transformers"], help=argparse.SUPPRESS)
    parser.add_argument("--make", choices=SIZES, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.loop:
        print(loop(args.loop, args.encoder, [str(path) for path in sorted(args.photos.iterdir())]))
        return 0
    if args.make:
        make_model(args.make, args.work)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        os.environ["XDG_CACHE_HOME"] = str(work / "cache")
        photos = work / f"photos-{args.limit}"
        photos.mkdir(parents=True, exist_ok=True)
        for path in sorted(args.photos.iterdir())[: args.limit]:
            if not (photos / path.name).exists():
                (photos / path.name).symlink_to(path.resolve())
        results: dict[str, Any] = {"cpu": cpu_name(), "photos": args.limit, "rounds": args.rounds}
        for name in args.only or ([args.encoder] if args.encoder else [*SIZES, "brivl-mini"]):
            if name in SIZES:
                folder = work / name
                if not (folder / "model.safetensors").is_file():  # not here: a child's memory would begin with ours
                    child([__file__, "--make", name, "--work", str(folder)])
                encoder = f"hf:{folder}"
            else:
                encoder = name
            results[name] = measure(name, encoder, photos, work, args.rounds)
            if not args.json:
                show(name, results[name])
    results["load"] = os.getloadavg()[0]
    print(json.dumps(results, indent=1) if args.json else f"\n{results['cpu']}; load {results['load']:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
