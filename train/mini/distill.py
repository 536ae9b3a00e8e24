"""Teaches the text tower language before it sees photos: its vectors learn to say what sentence encoders say.

    python -m train.mini.teachers runs/teachers                           # once: the teachers and word lists
    python -m train.mini.distill train/recipes/brivl-mini-text.toml       # train, or go on after a kill

A small collection has captions enough to learn its photos by heart and too few to learn a language. Multilingual
distillation (Reimers & Gurevych, EMNLP 2020): a caption's target is its own teacher's vector and, where captions are
translations of each other, the other language's too; single words widen the vocabulary. The loss of a teacher is
1 − cosine plus the KL divergence between the batch's similarity distributions. Writes a checkpoint with a text tower
alone, for `init.checkpoint` of `train.pretrain`.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional as F

from brivl_search.encoders.brivl.checkpoint import save_checkpoint
from brivl_search.encoders.brivl.text_tower import TextTower
from brivl_search.encoders.brivl.tokenizer import TextTokenizer
from brivl_search.encoders.device import has_fast_bf16, pick_device
from brivl_search.errors import UsageError
from train.data.photos import Photo, mask_id, read_photos
from train.mini.teachers import embed_cached
from train.model.start import load_text_backbone
from train.recipe import TextRecipe, read_recipe
from train.run.cpu import quicken
from train.run.loop import rate_at
from train.run.state import load_state, save_state, trim_log
from train.run.stop import Stop


@dataclass
class Lessons:
    """Texts and, for every teacher, the row of each text's target (-1: none)."""

    texts: list[str]
    rows: dict[str, np.ndarray]
    targets: dict[str, Tensor]  # (n, d) centred unit vectors


def collect(photos: list[Photo], recipe: TextRecipe, base: Path, cache: Path, centre: dict[str, Tensor]) -> Lessons:
    """The captions of `photos`, and the word lists if this is the training part (`centre` is empty)."""
    fields = {name: teacher.name for teacher in recipe.teachers for name in teacher.fields}
    pairs: list[tuple[str, dict[str, str]]] = []  # a text and, per teacher, the text whose vector is its target
    for photo in photos:
        for field, texts in photo.captions.items():
            partner = recipe.parallel.get(field)
            others = photo.captions.get(partner, []) if partner else []
            for text, other in zip(texts, others if len(others) == len(texts) else [None] * len(texts), strict=True):
                wanted = {fields[field]: text} if field in fields else {}
                wanted |= {fields[partner]: other} if partner and other else {}
                pairs += [(text, wanted)] * (1 if centre else photo.repeat)
    if not centre:
        for spec in recipe.words:
            pairs += [
                (word, {spec.teacher: word}) for word in (base / spec.file).read_text("utf-8").split("\n") if word
            ]
        for pages in recipe.dictionaries:  # line k of one file translates line k of the other
            first, second = list(pages.files.items())
            lines = [(base / file).read_text("utf-8").splitlines() for _, file in (first, second)]
            for a, b in zip(*lines, strict=True):
                pairs += [(text, {first[0]: a, second[0]: b}) for text in (a, b)] * pages.repeat
    rows, targets = {}, {}
    for teacher in recipe.teachers:
        name = teacher.name
        unique = sorted({wanted[name] for _, wanted in pairs if name in wanted})
        number = {text: i for i, text in enumerate(unique)}
        rows[name] = np.array([number.get(wanted.get(name, ""), -1) for _, wanted in pairs])
        vectors = torch.from_numpy(embed_cached((base / teacher.folder).resolve(), unique, cache))
        centre.setdefault(name, vectors.mean(0))  # sentence encoders' vectors crowd one side of the sphere
        targets[name] = F.normalize(vectors - centre[name], dim=1)
    return Lessons([text for text, _ in pairs], rows, targets)


class Student(nn.Module):
    """The text tower with one linear layer per teacher on the hidden layer of its MLP."""

    def __init__(self, text: TextTower, sizes: dict[str, int]) -> None:
        super().__init__()
        self.text = text
        self.says = nn.ModuleDict({name: nn.Linear(text.head.fc1.out_features, d) for name, d in sizes.items()})

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Token ids (B, T) → unit vectors (B, d) per teacher."""
        hidden = self.text.hidden(ids, mask)
        return {name: F.normalize(layer(hidden).float(), dim=1) for name, layer in self.says.items()}


def distillation_loss(said: Tensor, target: Tensor, temperature: float = 0.05, relation: float = 0.2) -> Tensor:
    """mean(1 − cos) + relation · KL(teacher's ‖ student's distribution over the batch's targets).

    Args:
        said, target: (B, d) unit vectors, of the student and the teacher.
    """
    wanted = (target @ target.T / temperature).log_softmax(1)
    given = (said @ target.T / temperature).log_softmax(1)
    return (1 - (said * target).sum(1)).mean() + relation * F.kl_div(
        given, wanted, reduction="batchmean", log_target=True
    )


def batch_rows(step: int, lengths: np.ndarray, batch: int, seed: int) -> np.ndarray:
    """Rows of step `step`: within 16 batches of the epoch's permutation, texts of like length go together."""
    group = 16 * batch
    per_epoch = max(len(lengths) // group, 1)
    epoch, place = divmod(step // 16, per_epoch)
    order = np.random.default_rng((seed, epoch)).permutation(len(lengths))[place * group : (place + 1) * group]
    rng = np.random.default_rng((seed, epoch, place))
    order = order[np.argsort(lengths[order] + rng.random(len(order)))]
    rows: np.ndarray = np.array_split(order, 16)[rng.permutation(16)[step % 16]]
    return rows


def evaluate(
    student: Student, tokenizer: TextTokenizer, lessons: Lessons, device: torch.device, bf16: bool
) -> dict[str, Any]:
    """Translations among the validation captions: how often what is said for the other language is nearest to it."""
    student.eval()
    ids = tokenizer.ids(lessons.texts)
    out: dict[str, list[Tensor]] = {name: [] for name in lessons.targets}
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for start in range(0, len(ids), 500):
            padded, mask = (torch.from_numpy(a).to(device) for a in tokenizer.batch(ids[start : start + 500]))
            for name, vectors in student(padded, mask).items():
                out[name].append(vectors.cpu())
    figures = {}
    for name, target in lessons.targets.items():
        rows = torch.from_numpy(lessons.rows[name])
        known = rows >= 0
        scores = torch.cat(out[name])[known] @ target.T
        own = scores.gather(1, rows[known, None])
        figures[name] = round(float((scores > own).sum(1).lt(1).float().mean()) * 100, 1)
    return figures


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a recipe value")
    args = parser.parse_args(argv)
    try:
        recipe = read_recipe(args.recipe, args.set, TextRecipe)
    except UsageError as error:
        parser.exit(2, f"train.mini.distill: {error}\n")
    base, run, cfg = args.recipe.resolve().parent, Path(recipe.run), recipe.train
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(cfg.seed)
    device = pick_device(cfg.device)
    bf16 = has_fast_bf16(device) if cfg.bf16 is None else cfg.bf16
    if device.type == "cpu":
        quicken()

    config = recipe.config
    tokenizer = TextTokenizer((base / recipe.init.tokenizer).resolve(), config.text.max_length)
    photos, cache = read_photos(recipe.data, base), Path(recipe.cache or run / "cache")
    centre: dict[str, Tensor] = {}
    lessons = collect(photos.train, recipe, base, cache, centre)
    exam = collect(photos.val, recipe, base, cache, centre) if photos.val else None
    tower = TextTower(config.text, config.dim)
    if recipe.init.text is not None:
        load_text_backbone(tower, (base / recipe.init.text).resolve())
    student = Student(tower, {name: targets.shape[1] for name, targets in lessons.targets.items()}).to(device)
    decayed = [p for n, p in student.named_parameters() if p.ndim > 1 and "embeddings" not in n]
    rest = [p for n, p in student.named_parameters() if not (p.ndim > 1 and "embeddings" not in n)]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": cfg.weight_decay}, {"params": rest, "weight_decay": 0.0}],
        lr=cfg.lr, betas=(0.9, 0.98), fused=True,
    )  # fmt: skip
    more: dict[str, Any] = {}
    step, _ = load_state(run / "last.pt", student, optimizer, device, more=more)
    steps = cfg.steps
    trim_log(run / "log.jsonl", step)

    token_ids = tokenizer.ids(lessons.texts)
    lengths = np.array([len(row) for row in token_ids])
    special = {tokenizer.pad_id, tokenizer.start_id, tokenizer.end_id}
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Stop() as stop, Progress(*columns) as progress, (run / "log.jsonl").open("a", buffering=1) as log:
        task = progress.add_task(f"{len(lessons.texts)} texts", total=steps, completed=step)
        window, since = list(more.get("window", [])), time.perf_counter()
        while step < steps and not stop.asked:
            rows = batch_rows(step, lengths, cfg.batch, cfg.seed)
            rng = np.random.default_rng((cfg.seed, 2, step))
            drop, masked = cfg.token_dropout, mask_id(tokenizer, cfg.token_dropout)
            kept = [[t if t in special or rng.random() >= drop else masked for t in token_ids[r]] for r in rows]
            padded, mask = (torch.from_numpy(a).to(device) for a in tokenizer.batch(kept))
            for group in optimizer.param_groups:
                group["lr"] = cfg.lr * rate_at(step, steps, cfg.warmup)
            student.train()
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                said = student(padded, mask)
            loss = torch.zeros((), device=device)
            for name, vectors in said.items():
                target = torch.from_numpy(lessons.rows[name][rows])
                if (target >= 0).sum() > 1:
                    known = (target >= 0).to(device)
                    loss = loss + distillation_loss(
                        vectors[known], lessons.targets[name][target[target >= 0]].to(device)
                    )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            step += 1
            window.append(loss.item())
            if step % 20 == 0 or step == steps:
                speed = len(window) * cfg.batch / (time.perf_counter() - since)
                line: dict[str, Any] = {"step": step, "loss": sum(window) / len(window), "texts_per_s": speed}
                if step % cfg.eval_every == 0 or step == steps:
                    if exam is not None:
                        line["nearest"] = evaluate(student, tokenizer, exam, device, bf16)
                    save_checkpoint(run / "checkpoint", config, nn.Identity(), student.text, tokenizer, half=False)
                log.write(json.dumps(line) + "\n")
                if step % cfg.eval_every == 0 or step == steps:
                    save_state(run / "last.pt", student, optimizer, step, 0.0)
                progress.update(task, description=f"loss {line['loss']:.3f} · {speed:.0f} texts/s")
                window, since = [], time.perf_counter()
            if stop.asked:
                save_state(run / "last.pt", student, optimizer, step, 0.0, more={"window": window})
            progress.update(task, completed=step)
    if stop.asked and step < steps:
        name = signal.Signals(stop.asked).name
        print(f"{run}: stopped by {name} at step {step}, saved; the same command goes on", flush=True)
        raise SystemExit(128 + stop.asked)
    print(f"{run}: step {step} of {steps}; pass {run / 'checkpoint'} to train.pretrain as init.checkpoint")


if __name__ == "__main__":
    main()
