"""The third round: the image tower's heads learn beside what the classifiers of its CNNs see. CNNs and texts stay.

    python -m train.mini.maps train/recipes/brivl-mini-3.toml        # once: what the CNNs give
    python -m train.mini.heads train/recipes/brivl-mini-3.toml
    python -m train.mini.heads train/recipes/brivl-mini-3.toml --set run=runs/other --set train.seed=1

Every step has photos with captions and pictures with labels (`train.mini.lessons`). What is kept is a running average
of the weights, as a checkpoint folder, at every validation; figures go to log.jsonl in the run's folder.
"""

from __future__ import annotations

import copy
import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from brivl_search.encoders.brivl.checkpoint import FolderCheckpoint, load_tower, save_checkpoint
from brivl_search.encoders.brivl.image_tower import ImageTower, mean_direction
from brivl_search.encoders.device import has_fast_bf16, pick_device
from train.data.photos import draw_captions
from train.mini.given import Lessons, read_lessons
from train.mini.head_recipe import HeadsRecipe, HeadTraining
from train.mini.labelled import all_names
from train.mini.lessons import (
    LANGUAGES,
    caption_loss,
    label_loss,
    teacher_loss,
    translation_loss,
)
from train.mini.progress import Progress
from train.mini.tokens import LastLayers
from train.run.command import asked
from train.run.cpu import quicken
from train.run.loop import rate_at, without_model


def known_tower(recipe: HeadsRecipe, base: Path) -> ImageTower:
    """The image tower of the first checkpoint."""
    checkpoint = FolderCheckpoint((base / str(recipe.init.checkpoint)).resolve())
    known = ImageTower(checkpoint.config.image, checkpoint.config.dim)
    checkpoint.fill("image", known)
    return known


def start(recipe: HeadsRecipe, base: Path, names: Tensor, known: ImageTower) -> ImageTower:
    """The recipe's image tower: all that the first checkpoint has, and the classifiers of the CNNs' ImageNet weights.

    Their logits are averaged. What a class says begins as the text tower's vector of its name, centred.

    Args:
        recipe: which checkpoint and classifiers.
        base: the recipe's folder.
        names: (classes, dim), vectors of the classes' names.
        known: the first checkpoint's tower.
    """
    tower = ImageTower(recipe.config.image, recipe.config.dim)
    if recipe.go_on is not None:
        load_tower((base / recipe.go_on).resolve(), "image", tower)
        return tower
    missing, unknown = tower.load_state_dict(known.state_dict(), strict=False)
    if unknown or any(not name.startswith("seen.") for name in missing):
        raise SystemExit(f"{recipe.init.checkpoint} does not fit [model]: {[*unknown, *missing][:3]}")
    if tower.seen is not None and missing:
        files = [recipe.classifiers[at] for at in tower.seen.backbones]
        states = [load_file(str((base / file).resolve())) for file in files]
        with torch.no_grad():
            weights = [state["classifier.weight"].flatten(1).float() for state in states]
            tower.seen.classifier.weight.copy_(torch.cat(weights, 1) / len(states))
            tower.seen.classifier.bias.copy_(
                torch.stack([state["classifier.bias"].float() for state in states]).mean(0)
            )
            tower.seen.names.weight.copy_((names - names.mean(0)).T)
    return tower


class Teaching:
    """The loss of a step, and what it must remember of earlier ones."""

    def __init__(
        self, lessons: Lessons, tower: ImageTower, known: ImageTower, cfg: HeadTraining, *, bf16: bool
    ) -> None:
        """`known`: the tower as the first checkpoint has it, without classifiers."""
        self.lessons, self.tower, self.cfg, self.bf16 = lessons, tower, cfg, bf16
        self.known = known.eval()
        self.past = torch.empty(0, lessons.texts.bank.shape[1])
        # A name that a text says almost alike is no wrong answer.
        mean = torch.stack([lessons.names.mean(language) for language in LANGUAGES])
        self.alike = ((mean @ mean.transpose(1, 2)).amax(0) > 0.95).float()
        self.parts: dict[str, float] = {}

    def loss(self, step: int) -> Tensor:
        """Captions, labels and teachers, each for every head by itself."""
        cfg, lessons = self.cfg, self.lessons
        rng = np.random.default_rng((cfg.seed, 2, step))
        told = lessons.draw(lessons.captioned, cfg.batch, step, (cfg.seed, 0))
        named = lessons.draw(lessons.labelled, cfg.labelled_batch, step, (cfg.seed, 1))
        maps = lessons.views(np.concatenate([told, named]), cfg, rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            members = self.tower.embed_members(maps).float()
        with torch.no_grad():
            seen = self.tower.seen
            teacher = None if seen is None else seen.logits(maps).softmax(1) @ lessons.classes
            held = len(maps[0]) if cfg.keep_named else len(told)
            was = self.was([part[:held] for part in maps])
        texts = [
            lessons.row[text]
            for number in told
            for text in draw_captions(
                lessons.pictures[number].captions, lessons.pictures[number].weights, cfg.captions_per_image, rng
            )
        ]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            captions = lessons.texts.vectors(texts)
        negatives = lessons.texts.bank[self.strangers(rng.integers(lessons.captions, size=cfg.negatives), told)]
        owners = torch.from_numpy(told)
        heads = [caption_loss(m[: len(told)], captions, negatives, self.past, owners, cfg.temperature) for m in members]
        parts = {"captions": cfg.caption_weight * torch.stack(heads).mean()}
        if was is not None:
            moved = 1 - (members[:, :held] * was).sum(2)
            kept = moved[:, : len(told)].mean()
            if cfg.keep_named:
                kept = kept + cfg.keep_named * moved[:, len(told) :].mean()
            parts["kept"] = cfg.keep_weight * kept
        parts |= self.names(members, len(told), named, teacher, rng)
        self.past = torch.cat([self.past, mean_direction(members[:, : len(told)].detach())])[-2048:]
        self.parts = {name: float(value.detach()) for name, value in parts.items()}
        return torch.stack([*parts.values()]).sum()

    def was(self, maps: list[Tensor]) -> Tensor | None:
        """What the first checkpoint says of pictures, (B, dim); None where nothing holds the tower to it."""
        if not self.cfg.keep_weight:
            return None
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            return self.known.embed(maps).float()

    def names(
        self, members: Tensor, told: int, named: np.ndarray, teacher: Tensor | None, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """What names teach, in both languages.

        Args:
            members: (members, B + L, dim), the vectors of all pictures of the step.
            told: B, of which so many have captions.
            named: numbers of the L others.
            teacher: (B + L, names), the classifiers' probabilities; None: there are none.
            rng: draws sentences.
        """
        cfg, lessons = self.cfg, self.lessons
        labels, teaching, tables, chosen = [], [], [], None
        is_class = lessons.classes.sum(0) > 0
        learnt = lessons.shown[named].any(0)
        if teacher is not None:
            learnt[teacher.argmax(1)] = True
        some = learnt.nonzero()[:, 0]
        for language in LANGUAGES:
            table, sentences = lessons.names.drawn(language, rng)
            if lessons.texts.learns and sentences is not None:
                with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                    chosen = lessons.texts.vectors([lessons.captions + sentences[at] for at in some])
                table = table.index_copy(0, some, chosen)
                tables.append((chosen, table))
            scores = torch.unflatten(members.flatten(0, 1) @ table.T / cfg.class_temperature, 0, members.shape[:2])
            labels.append(self.labels(scores[:, told:], named, None if teacher is None else teacher[told:]))
            if teacher is not None:
                for rows, share in ((slice(told), cfg.told_weight), (slice(told, None), 1.0)):
                    each = [teacher_loss(s[rows, is_class], teacher[rows, is_class]) for s in scores]
                    teaching.append(share * torch.stack(each).mean())
        parts = {"labels": cfg.label_weight * torch.stack(labels).mean()}
        if teaching:
            parts["teachers"] = cfg.teacher_weight * torch.stack(teaching).sum() / len(LANGUAGES)
        if len(tables) == 2 and cfg.text_weight:
            (one, all_one), (other, all_other) = tables
            both = translation_loss(one, all_other.detach(), some, cfg.temperature) + translation_loss(
                other, all_one.detach(), some, cfg.temperature
            )
            parts["translations"] = cfg.text_weight * both / 2
        return parts

    def strangers(self, rows: np.ndarray, told: np.ndarray) -> np.ndarray:
        """Those of the captions that no picture of the batch has."""
        known = {
            self.lessons.row[t] for n in told for group in self.lessons.pictures[n].captions.values() for t in group
        }
        return rows[[int(row) not in known for row in rows]]

    def labels(self, scores: Tensor, named: np.ndarray, teacher: Tensor | None) -> Tensor:
        """Names of the picture's own collection, and all names but those that may be right as well; the mean of both.

        Args:
            scores: (members, L, names).
            named: numbers of the L pictures.
            teacher: (L, names), the classifiers' probability of a name.
        """
        shown, own = self.lessons.shown[named], self.lessons.among[named]
        own, other = own & self.lessons.known, ((shown.float() @ self.alike) == 0) & self.lessons.known
        if teacher is not None:
            other &= teacher < 0.01
        losses = [(label_loss(s, shown, own) + label_loss(s, shown, own | other)) / 2 for s in scores]
        return torch.stack(losses).mean()


def learning(tower: ImageTower, last: LastLayers, cfg: HeadTraining) -> list[dict[str, object]]:
    """AdamW groups: all but the CNNs and the classifier; no decay on biases, norms and the classes' vectors."""
    tower.backbones.requires_grad_(False)
    last.requires_grad_(cfg.text_lr_factor > 0)
    if tower.seen is not None:
        tower.seen.classifier.requires_grad_(False)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module, rate in ((tower, cfg.lr), (last, cfg.lr * cfg.text_lr_factor)):
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                decays = parameter.ndim > 1 and not name.startswith("seen.")
                groups.setdefault((rate, cfg.weight_decay if decays else 0.0), []).append(parameter)
    return [{"params": ps, "weight_decay": wd, "lr": rate, "base_lr": rate} for (rate, wd), ps in groups.items()]


class Judge:
    """The running average of what learns, and its figures and checkpoints."""

    def __init__(self, recipe: HeadsRecipe, base: Path, lessons: Lessons, tower: ImageTower, *, bf16: bool) -> None:
        self.recipe, self.lessons, self.bf16 = recipe, lessons, bf16
        self.fast: list[nn.Module] = [tower, lessons.texts.last]
        self.tower, self.last = copy.deepcopy(tower).eval(), copy.deepcopy(lessons.texts.last).eval()
        self.progress = Progress(lessons.pictures, lessons.maps, all_names(lessons.pictures), lessons.names)
        self.tokenizer = FolderCheckpoint((base / str(recipe.init.checkpoint)).resolve()).tokenizer()
        asked = {text for p in self.progress.kept for group in p.captions.values() for text in group}
        self.asked = [*(lessons.row[text] for text in asked), *range(lessons.captions, len(lessons.texts.bank))]

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Moves the average towards what is learnt; faster in the first steps."""
        momentum = min(self.recipe.train.average, (1 + step) / (10 + step))
        for slow, fast in zip((self.tower, self.last), self.fast, strict=True):
            for kept, new in zip(slow.parameters(), fast.parameters(), strict=True):
                if new.requires_grad:
                    kept.lerp_(new, 1 - momentum)

    def measure(self) -> dict[str, str]:
        """Figures of the average."""
        texts = self.lessons.texts
        if texts.learns:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                texts.bank[self.asked] = torch.from_numpy(self.last.embed(texts.tokens, self.asked))
        return self.progress.measure(self.tower, self.lessons.said, bf16=self.bf16)

    def save(self, step: int, found: dict[str, str], name: str = "checkpoint") -> None:
        """Writes a checkpoint into the run's folder."""
        facts = {"recipe": without_model(self.recipe.raw), "step": step, "val": found}
        text = copy.deepcopy(self.lessons.text)
        LastLayers(text, self.recipe.train.text_layers).load_state_dict(self.last.state_dict())
        folder = Path(self.recipe.run) / name
        save_checkpoint(folder, replace(self.recipe.config, training=facts), self.tower, text, self.tokenizer)


def train(recipe: HeadsRecipe, base: Path, stop_after: int | None = None) -> None:
    """The whole run, or its first steps; the schedule stays."""
    cfg, run = recipe.train, Path(recipe.run)
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(cfg.seed)
    device = pick_device(cfg.device)
    bf16 = has_fast_bf16(device) if cfg.bf16 is None else cfg.bf16
    quicken()
    lessons = read_lessons(recipe, base, bf16=bf16)
    zh, en = (lessons.names.mean(language) for language in LANGUAGES)
    known = known_tower(recipe, base)
    tower = start(recipe, base, lessons.classes @ F.normalize(zh + en, dim=1), known).train()
    last = lessons.texts.last.train(lessons.texts.learns)
    optimizer = torch.optim.AdamW(learning(tower, last, cfg), betas=(0.9, 0.98), fused=True)
    judge = Judge(recipe, base, lessons, tower, bf16=bf16)
    teaching = Teaching(lessons, tower, known, cfg, bf16=bf16)
    with (run / "log.jsonl").open("a", buffering=1) as log:
        found = judge.measure()
        judge.save(0, found, "start")
        log.write(json.dumps({"step": 0, **found}, ensure_ascii=False) + "\n")
        since, counted, sums = time.perf_counter(), 0, dict[str, float]()
        last_step = min(cfg.steps, stop_after or cfg.steps)
        for step in range(last_step):
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * rate_at(step, cfg.steps, cfg.warmup)
            optimizer.zero_grad(set_to_none=True)
            loss = teaching.loss(step)
            if not math.isfinite(value := float(loss.detach())):
                raise SystemExit(f"the loss is {value} at step {step}: lower train.lr, or set train.bf16=false")
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], cfg.clip_grad)
            optimizer.step()
            judge.follow(step)
            sums = {name: sums.get(name, 0.0) + value for name, value in teaching.parts.items()}
            counted += 1
            due = (done := step + 1) % cfg.eval_every == 0 or done == last_step
            if done % 20 == 0 or due:
                line: dict[str, object] = {"step": done, "s": round((time.perf_counter() - since) / counted, 2)}
                line |= {name: round(value / counted, 4) for name, value in sums.items()}
                if due:
                    found = judge.measure()
                    line |= found
                    judge.save(done, found)
                log.write(json.dumps(line, ensure_ascii=False) + "\n")
                since, counted, sums = time.perf_counter(), 0, {}
    print(f"{run / 'checkpoint'}: after {last_step} steps")


def main(argv: list[str] | None = None) -> None:
    train(*asked(__doc__, HeadsRecipe, argv))


if __name__ == "__main__":
    main()
