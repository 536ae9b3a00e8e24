"""The third round: the image tower's heads learn beside what the classifiers of its CNNs see. CNNs and texts stay.

    python -m train.mini.maps train/recipes/brivl-mini-3.toml        # once: what the CNNs give
    python -m train.mini.heads train/recipes/brivl-mini-3.toml
    python -m train.mini.heads train/recipes/brivl-mini-3.toml --set run=runs/other --set train.seed=1

Every step has photos with captions and pictures with labels (`train.mini.lessons`). What is kept is a running average
of the weights, as a checkpoint folder, at every validation; figures go to log.jsonl in the run's folder.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from brivl_search.encoders.brivl.checkpoint import FolderCheckpoint, save_checkpoint
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.brivl.image_tower import ImageTower, mean_direction
from brivl_search.encoders.brivl.text_tower import TextTower
from brivl_search.encoders.device import has_fast_bf16, pick_device
from train.data.photos import draw_captions
from train.mini.labelled import Name, Picture, all_names, read_pictures
from train.mini.lessons import LANGUAGES, NameVectors, by_name, caption_loss, label_loss, teacher_loss
from train.mini.maps import Maps, load_maps
from train.mini.progress import Progress
from train.recipe import HeadsRecipe, HeadTraining, read_recipe
from train.run.cpu import quicken
from train.run.loop import rate_at, without_model


def start(recipe: HeadsRecipe, base: Path, names: Tensor) -> ImageTower:
    """The recipe's image tower: all that the first checkpoint has, and the classifiers of the CNNs' ImageNet weights.

    Their logits are averaged. What a class says begins as the text tower's vector of its name, centred.

    Args:
        recipe: which checkpoint and classifiers.
        base: the recipe's folder.
        names: (classes, dim), vectors of the classes' names.
    """
    checkpoint = FolderCheckpoint((base / str(recipe.init.checkpoint)).resolve())
    tower = ImageTower(recipe.config.image, recipe.config.dim)
    known = ImageTower(checkpoint.config.image, checkpoint.config.dim)
    checkpoint.fill("image", known)
    missing, unknown = tower.load_state_dict(known.state_dict(), strict=False)
    if unknown or any(not name.startswith("seen.") for name in missing):
        raise SystemExit(f"{checkpoint.name} does not fit [model]: {[*unknown, *missing][:3]}")
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


def text_vectors(recipe: HeadsRecipe, base: Path, texts: list[str]) -> np.ndarray:
    """Vectors (texts, dim) of the first checkpoint's text tower, without its correction of hubs; kept in the cache."""
    encoder = BriVLEncoder((base / str(recipe.init.checkpoint)).resolve())
    key = hashlib.sha256(json.dumps([encoder.fingerprint, texts]).encode()).hexdigest()[:12]
    file = Path(recipe.cache or recipe.run) / f"texts-{key}.npy"
    if not file.is_file():
        vars(encoder.checkpoint)["hubness"] = None
        found = np.concatenate([encoder.encode_texts(texts[at : at + 4096]) for at in range(0, len(texts), 4096)])
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, found.astype(np.float16))
    return np.load(file).astype(np.float32)  # type: ignore[no-any-return]


@dataclass
class Lessons:
    """All that a step draws from.

    Attributes:
        pictures, maps: of the recipe, and what the CNNs give for them.
        captioned, labelled: numbers of the pictures that are trained on, each as often as it is drawn in an epoch.
        captions, row: vectors of all captions, and the row of each text.
        names: vectors of the names; `shown` (pictures, names) and `among`, the names of its collection.
        classes: (classes, names), which name a classifier's class has.
    """

    pictures: list[Picture]
    maps: Maps
    captioned: np.ndarray
    labelled: np.ndarray
    captions: Tensor
    row: dict[str, int]
    names: NameVectors
    shown: Tensor
    among: Tensor
    classes: Tensor

    def draw(self, numbers: np.ndarray, count: int, step: int, seed: tuple[int, ...]) -> np.ndarray:
        """`count` of `numbers`: a slice of the epoch's permutation."""
        epoch, at = divmod(step, max(len(numbers) // count, 1))
        order = np.random.default_rng((*seed, epoch)).permutation(numbers)
        return order[at * count : (at + 1) * count]

    def said(self, texts: list[str]) -> np.ndarray:
        """Vectors of captions, (texts, dim)."""
        return self.captions[[self.row[text] for text in texts]].numpy()

    def views(self, chosen: np.ndarray, cfg: HeadTraining, rng: np.random.Generator) -> list[Tensor]:
        """Maps of a view of each picture, some mirrored."""
        views = []
        for number in chosen:
            there = self.maps.views_of(int(number))
            plain = there == 1 or rng.random() < cfg.plain_view
            views.append(0 if plain else int(rng.integers(1, there)))
        flips = torch.from_numpy(rng.random(len(chosen)) < cfg.flip)
        maps = self.maps.take([int(n) for n in chosen], views)
        for part in maps:
            part[flips] = part[flips].flip(3)
        return maps


def read_lessons(recipe: HeadsRecipe, base: Path) -> Lessons:
    """Reads pictures and maps, and embeds captions and names."""
    pictures = read_pictures(recipe, base)
    maps = load_maps(recipe, base, pictures)
    names = all_names(pictures)
    vectors = NameVectors(names, recipe.kinds)
    captions = [*dict.fromkeys(t for p in pictures for group in p.captions.values() for t in group)]
    found = torch.from_numpy(text_vectors(recipe, base, [*captions, *vectors.texts]))
    vectors.fill(found[len(captions) :])
    used = [i for i, p in enumerate(pictures) if not p.kept or recipe.everything]
    repeated = [i for i in used for _ in range(pictures[i].repeat)]
    shown = names.shown(pictures)
    own = {c: np.array([c in places for places in names.collections]) for c in {p.collection for p in pictures}}
    rows = [json.loads(line) for line in (base / recipe.names).read_text(encoding="utf-8").splitlines()]
    return Lessons(
        pictures=pictures,
        maps=maps,
        captioned=np.array([i for i in repeated if pictures[i].captions]),
        labelled=np.array([i for i in repeated if pictures[i].names]),
        captions=found[: len(captions)],
        row={text: at for at, text in enumerate(captions)},
        names=vectors,
        shown=torch.from_numpy(shown),
        among=torch.from_numpy(np.stack([own[p.collection] for p in pictures])),
        classes=by_name([names.number(Name(row["zh"], row["en"])) for row in rows], len(names.names)),
    )


class Teaching:
    """The loss of a step, and what it must remember of earlier ones."""

    def __init__(self, lessons: Lessons, tower: ImageTower, cfg: HeadTraining, *, bf16: bool) -> None:
        self.lessons, self.tower, self.cfg, self.bf16 = lessons, tower, cfg, bf16
        self.past = torch.empty(0, lessons.captions.shape[1])
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
        texts = [
            lessons.row[text]
            for number in told
            for text in draw_captions(
                lessons.pictures[number].captions, lessons.pictures[number].weights, cfg.captions_per_image, rng
            )
        ]
        others = rng.integers(len(lessons.captions), size=cfg.negatives)
        captions, negatives = lessons.captions[texts], lessons.captions[self.strangers(others, told)]
        owners = torch.from_numpy(told)
        parts = {"captions": torch.stack([
            caption_loss(m[: len(told)], captions, negatives, self.past, owners, cfg.temperature) for m in members
        ]).mean()}  # fmt: skip
        flat = members.flatten(0, 1)
        labels, teaching = [], []
        for language in LANGUAGES:
            table = lessons.names.drawn(language, rng)
            scores = torch.unflatten(flat @ table.T / cfg.class_temperature, 0, members.shape[:2])
            labels.append(self.labels(scores[:, len(told) :], named, None if teacher is None else teacher[len(told) :]))
            if teacher is not None:
                is_class = lessons.classes.sum(0) > 0
                teaching.append(
                    torch.stack([teacher_loss(s[:, is_class], teacher[:, is_class]) for s in scores]).mean()
                )
        parts["labels"] = cfg.label_weight * torch.stack(labels).mean()
        if teaching:
            parts["teachers"] = cfg.teacher_weight * torch.stack(teaching).mean()
        self.past = torch.cat([self.past, mean_direction(members[:, : len(told)].detach())])[-2048:]
        self.parts = {name: float(value.detach()) for name, value in parts.items()}
        return torch.stack([*parts.values()]).sum()

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
        other = (shown.float() @ self.alike) == 0
        if teacher is not None:
            other &= teacher < 0.01
        losses = [(label_loss(s, shown, own) + label_loss(s, shown, own | other)) / 2 for s in scores]
        return torch.stack(losses).mean()


def learning(tower: ImageTower, cfg: HeadTraining) -> list[dict[str, object]]:
    """AdamW groups: all but the CNNs and the classifier; no decay on biases, norms and the classes' vectors."""
    tower.backbones.requires_grad_(False)
    groups: dict[float, list[nn.Parameter]] = {}
    if tower.seen is not None:
        tower.seen.classifier.requires_grad_(False)
    for name, parameter in tower.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and not name.startswith("seen.")
            groups.setdefault(cfg.weight_decay if decays else 0.0, []).append(parameter)
    return [{"params": ps, "weight_decay": decay, "lr": cfg.lr} for decay, ps in groups.items()]


def train(recipe: HeadsRecipe, base: Path) -> None:
    """The whole run."""
    cfg, run = recipe.train, Path(recipe.run)
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(cfg.seed)
    device = pick_device(cfg.device)
    bf16 = has_fast_bf16(device) if cfg.bf16 is None else cfg.bf16
    quicken()
    lessons = read_lessons(recipe, base)
    zh, en = (lessons.names.mean(language) for language in LANGUAGES)
    tower = start(recipe, base, lessons.classes @ F.normalize(zh + en, dim=1)).train()
    progress = Progress(lessons.pictures, lessons.maps, all_names(lessons.pictures), lessons.names)
    checkpoint = FolderCheckpoint((base / str(recipe.init.checkpoint)).resolve())
    text, tokenizer = TextTower(checkpoint.config.text, checkpoint.config.dim), checkpoint.tokenizer()
    checkpoint.fill("text", text)
    optimizer = torch.optim.AdamW(learning(tower, cfg), betas=(0.9, 0.98), fused=True)
    slow = copy.deepcopy(tower).eval().requires_grad_(False)
    teaching = Teaching(lessons, tower, cfg, bf16=bf16)
    with (run / "log.jsonl").open("a", buffering=1) as log:
        log.write(json.dumps({"step": 0, **progress.measure(slow, lessons.said, bf16=bf16)}, ensure_ascii=False) + "\n")
        since, counted, sums = time.perf_counter(), 0, dict[str, float]()
        for step in range(cfg.steps):
            for group in optimizer.param_groups:
                group["lr"] = cfg.lr * rate_at(step, cfg.steps, cfg.warmup)
            optimizer.zero_grad(set_to_none=True)
            loss = teaching.loss(step)
            if not math.isfinite(value := float(loss.detach())):
                raise SystemExit(f"the loss is {value} at step {step}: lower train.lr, or set train.bf16=false")
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], cfg.clip_grad)
            optimizer.step()
            momentum = min(cfg.average, (1 + step) / (10 + step))
            with torch.no_grad():
                for kept, fast in zip(slow.parameters(), tower.parameters(), strict=True):
                    if fast.requires_grad:
                        kept.lerp_(fast, 1 - momentum)
            sums = {name: sums.get(name, 0.0) + value for name, value in teaching.parts.items()}
            counted += 1
            due = (done := step + 1) % cfg.eval_every == 0 or done == cfg.steps
            if done % 20 == 0 or due:
                line: dict[str, object] = {"step": done, "s": round((time.perf_counter() - since) / counted, 2)}
                line |= {name: round(value / counted, 4) for name, value in sums.items()}
                if due:
                    line |= (found := progress.measure(slow, lessons.said, bf16=bf16))
                    facts = {"recipe": without_model(recipe.raw), "step": done, "val": found}
                    config = replace(recipe.config, training=facts)
                    save_checkpoint(run / "checkpoint", config, slow, text, tokenizer)
                log.write(json.dumps(line, ensure_ascii=False) + "\n")
                since, counted, sums = time.perf_counter(), 0, {}
    print(f"{run / 'checkpoint'}: after {cfg.steps} steps")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a recipe value")
    args = parser.parse_args(argv)
    train(read_recipe(args.recipe, args.set, HeadsRecipe), args.recipe.resolve().parent)


if __name__ == "__main__":
    main()
