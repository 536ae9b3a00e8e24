"""BriVL's comparison at our scale: cross-modal MoCo, CLIP's loss and a one tower as UNITER, on the same pairs.

    python -m train.compare train/recipes/compare-one-tower.toml      # after a kill the same line goes on

Every objective reads the same frozen features: regions of the photos, reduced to their principal components, and the
first layers of the text tower. What learns begins at random. For one seed all of them see the same photos and captions
in the same order, and equally many. Each is measured on held-out photos by its averaged weights: two towers by
cosines, the one tower by a pass for every pair. Done runs are kept in results.jsonl and not repeated.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from brivl_search.encoders.brivl.config import HeadConfig
from brivl_search.encoders.brivl.heads import TowerHead
from brivl_search.encoders.one_tower.config import MatcherConfig
from brivl_search.encoders.one_tower.model import OneTower, Side, some_features
from train.beside import BesideRecipe, BesideTraining
from train.model.build import rates
from train.model.moco import Clip, MoCo
from train.model.towers import TwoTowers
from train.one_tower.lessons import Lessons
from train.one_tower.losses import hard_groups, matching_losses
from train.recipe import Positive, Rate, Share, Table, read_recipe
from train.run.cpu import quicken
from train.run.loop import rate_at
from train.run.show import Bar
from train.run.sitting import fast_bf16, frozen_towers

OBJECTIVES = {"moco": "BriVL (MoCo)", "clip": "CLIP's loss", "uniter": "one tower (UNITER)"}
CHUNK = 64


class Heads(Table):
    """`[towers]`: what two towers have over the frozen features."""

    dim: Positive = 256
    head: dict[str, Any] = Field({}, description="`HeadConfig` of both towers")


class CompareTraining(BesideTraining):
    """`[train]` of a comparison."""

    seeds: list[int] = Field([0, 1, 2], description="of weights, draws and dropout; each objective runs once for each")
    objectives: list[str] = Field(list(OBJECTIVES), description="of moco, clip and uniter")
    components: Positive = Field(256, description="numbers of a region: principal components of the CNNs' channels")
    text_layers: Positive = Field(3, description="layers of the text tower, frozen, that read a text for everybody")
    feature_dropout: Share = Field(0.0, description="share of a region's numbers dropped from a picture in training")
    queue_size: Positive = Field(4096, description="keys in each of MoCo's queues")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.99, description="of MoCo's towers")
    temperature: Annotated[float, Field(gt=0)] = Field(0.07, description="τ of MoCo and CLIP's loss")
    negatives: Positive = Field(1, description="random texts of each picture, and pictures of each text: the one tower")
    rank_weight: Rate = Field(1.0, description="the one tower: share of the loss that ranks a true pair")
    match_weight: Rate = Field(1.0, description="the one tower: share of image-text matching")
    measured_photos: Positive = Field(300, description="held-out photos, one caption each")


class CompareRecipe(BesideRecipe):
    """A recipe of `train.compare`."""

    towers: Heads = Field(default_factory=lambda: Heads.model_validate({}))
    matcher: dict[str, Any] = Field({}, description="sizes: brivl_search/encoders/one_tower/config.py")
    train: CompareTraining


class Features:
    """What every objective reads of photos and captions; both are computed once.

    Attributes:
        regions: float16 (photos, R, components), plain views.
        width: of a text's tokens.
    """

    def __init__(self, lessons: Lessons, cfg: CompareTraining) -> None:
        self.lessons, self.cfg = lessons, cfg
        self.regions = self._reduced()
        text = lessons.encoder.text_tower
        self.trunk = copy.deepcopy(text.backbone).eval()
        if len(self.trunk.encoder.layer) < cfg.text_layers:
            raise SystemExit(
                f"train.text_layers = {cfg.text_layers}: the text tower has {len(self.trunk.encoder.layer)}"
            )
        self.trunk.encoder.layer = self.trunk.encoder.layer[: cfg.text_layers]
        self.width = int(self.trunk.config.hidden_size)
        self._tokens: dict[int, Tensor] = {}

    @torch.no_grad()
    def _reduced(self) -> Tensor:
        """Centred, on the axes along which regions of training photos differ most; a number's mean square is 1."""
        lessons, count = self.lessons, self.cfg.components
        file = Path(lessons.regions.folder) / f"{lessons.regions.name(0)}-{count}.npy"
        if file.is_file():
            return torch.from_numpy(np.load(file))
        rng = np.random.default_rng(0)
        some = rng.permutation(lessons.parts["train"])[: 8 * CHUNK].tolist()
        sample = torch.cat([r for at in range(0, len(some), CHUNK) for r in self._plain(some[at : at + CHUNK])])
        sample = sample[torch.from_numpy(rng.permutation(len(sample))[: 16 * count])]
        torch.manual_seed(0)
        mean = sample.mean(0)
        _, spread, axes = torch.pca_lowrank(sample - mean, count, center=False)
        axes = axes * (count * len(sample) / spread.square().sum()).sqrt()
        found = []
        with Bar("principal components", len(lessons.photos)) as bar:
            for at in range(0, len(lessons.photos), CHUNK):
                rows = list(range(at, min(at + CHUNK, len(lessons.photos))))
                found.append(((self._plain(rows) - mean) @ axes).half())
                bar.to(rows[-1] + 1)
        reduced = torch.cat(found)
        np.save(file, reduced.numpy())
        return reduced

    def _plain(self, photos: list[int]) -> Tensor:
        return self.lessons.regions.take(photos, [0] * len(photos))

    @torch.no_grad()
    def texts(self, captions: np.ndarray) -> tuple[Tensor, Tensor]:
        """Tokens float32 (B, T, width) of the frozen layers, and mask (B, T)."""
        new = [caption for caption in dict.fromkeys(captions.tolist()) if caption not in self._tokens]
        for at in range(0, len(new), CHUNK):
            ids, mask = self.lessons.tokens(np.array(new[at : at + CHUNK]))
            with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16(self.cfg)):
                states = self.trunk(input_ids=ids, attention_mask=mask.long()).last_hidden_state
            for caption, row, there in zip(new[at : at + CHUNK], states, mask, strict=True):
                self._tokens[caption] = row[there].half()
        rows = [self._tokens[caption].float() for caption in captions.tolist()]
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in rows], True)
        return torch.nn.utils.rnn.pad_sequence(rows, True), mask

    def pictures(self, photos: np.ndarray) -> Tensor:
        """Regions float32 (B, R, components)."""
        return self.regions[torch.from_numpy(photos)].float()


class PictureHead(nn.Module):
    """The image tower over given regions: (B, R, components) → unit vectors (B, dim)."""

    def __init__(self, components: int, width: int, dim: int, config: HeadConfig) -> None:
        super().__init__()
        self.project = nn.Linear(components, width)
        self.head = TowerHead(width, dim, config)

    def forward(self, regions: Tensor) -> Tensor:
        found: Tensor = self.head(self.project(regions))
        return found


class TwoRun(nn.Module):
    """Two towers under MoCo or CLIP's loss."""

    def __init__(self, objective: str, recipe: CompareRecipe, features: Features) -> None:
        super().__init__()
        cfg, dim = recipe.train, recipe.towers.dim
        config = HeadConfig(**recipe.towers.head)
        image = PictureHead(cfg.components, features.width, dim, config)
        towers = TwoTowers(image, TowerHead(features.width, dim, config))
        self.learning: MoCo | Clip
        if objective == "moco":
            self.learning = MoCo(
                towers, dim, queue_size=cfg.queue_size, momentum=cfg.momentum, temperature=cfg.temperature
            )
        else:
            self.learning = Clip(towers, temperature=cfg.temperature)
        self.learns = towers

    def loss(self, regions: Tensor, tokens: Tensor, mask: Tensor, photos: Tensor) -> Tensor:
        found: Tensor = self.learning(regions, tokens, mask, photos)
        return found

    def table(self, averaged: nn.Module, regions: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Cosines (texts, pictures)."""
        assert isinstance(averaged, TwoTowers)
        return averaged.embed_texts(tokens, mask) @ averaged.embed_images(regions).T


class OneRun(nn.Module):
    """A one tower in which all tokens see all, taught by matching and ranking against random pairs of the batch."""

    def __init__(self, recipe: CompareRecipe, features: Features) -> None:
        super().__init__()
        self.cfg, self.boxes = recipe.train, features.lessons.boxes
        # The frozen layers stand for its words: it has no embeddings of its own.
        sizes = {"vocab_size": 1, "max_length": 1, "region_size": self.cfg.components, "width": features.width}
        self.learns = OneTower(MatcherConfig.from_dict({"kind": MatcherConfig.KIND, **sizes, **recipe.matcher}))

    def loss(self, regions: Tensor, tokens: Tensor, mask: Tensor, photos: Tensor) -> Tensor:
        none = torch.zeros(len(photos), 1)  # alike for all: any pair of another photo may be drawn
        groups = hard_groups(none, none, photos, self.cfg.negatives, 1.0)
        images = self.learns.images(regions, self.boxes)
        matching, ranking = matching_losses(self.learns, Side(tokens, mask), images, groups)
        return self.cfg.match_weight * matching + self.cfg.rank_weight * ranking

    def table(self, averaged: nn.Module, regions: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Logits (texts, pictures): a pass for every pair."""
        assert isinstance(averaged, OneTower)
        images, own = averaged.images(regions, self.boxes), torch.arange(len(regions))
        rows = []
        for text in range(len(tokens)):
            some = Side(tokens[text : text + 1, mask[text]], mask[text : text + 1, mask[text]])
            rows.append(averaged.logits(some, images, torch.zeros_like(own), own))
        return torch.stack(rows)


def one_run(objective: str, seed: int, recipe: CompareRecipe, features: Features) -> dict[str, Any]:
    """Trains once and measures: recall in percent both ways, seconds of a step and of the table of all pairs."""
    cfg = recipe.train.model_copy(update={"seed": seed})
    features.lessons.cfg = cfg
    torch.manual_seed(seed)
    run: TwoRun | OneRun = OneRun(recipe, features) if objective == "uniter" else TwoRun(objective, recipe, features)
    average = copy.deepcopy(run.learns).eval()
    optimizer = torch.optim.AdamW(rates(run.learns, cfg.lr, cfg.weight_decay), betas=(0.9, 0.98), fused=True)
    bf16, steps, losses = fast_bf16(cfg), [], []
    with Bar(f"{objective}, seed {seed}", cfg.steps) as bar:
        for step in range(cfg.steps):
            photos, captions = features.lessons.draw(step)
            tokens, mask = features.texts(captions[:, 0])
            since = time.process_time()
            torch.manual_seed(1_000_000 * seed + step)  # every objective sees the same numbers of a picture
            regions = some_features(features.pictures(photos), cfg.feature_dropout)
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * rate_at(step, cfg.steps, cfg.warmup)
            optimizer.zero_grad(set_to_none=True)
            run.train()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = run.loss(regions, tokens, mask, torch.from_numpy(photos))
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(run.learns.parameters(), cfg.clip_grad)
            optimizer.step()
            with torch.no_grad():
                for slow, fast in zip(average.parameters(), run.learns.parameters(), strict=True):
                    slow.lerp_(fast, 1 - min(cfg.average, (1 + step) / (10 + step)))
            steps.append(time.process_time() - since)
            losses.append(float(loss.detach()))
            bar.to(step + 1, f"loss {losses[-1]:.3f}")
    since = time.process_time()
    found = measure(lambda *data: run.table(average, *data), features, cfg, bf16=bf16)
    spent = time.process_time() - since
    return {
        "objective": objective, "seed": seed, "steps": cfg.steps, "pairs": cfg.steps * cfg.batch,
        "parameters": sum(p.numel() for p in run.learns.parameters()), "loss": [losses[0], losses[-1]],
        "cpu_s_per_step": round(statistics.median(steps), 3), "cpu_s_table": round(spent, 2), **found,
    }  # fmt: skip


@torch.inference_mode()
def measure(
    table: Callable[[Tensor, Tensor, Tensor], Tensor], features: Features, cfg: CompareTraining, *, bf16: bool
) -> dict[str, float]:
    """R@1, R@5 and R@10 both ways among held-out photos with one caption each."""
    lessons = features.lessons
    photos = np.array(lessons.parts["val"][: cfg.measured_photos])
    field = next(iter(lessons.photos[photos[0]].captions))
    captions = np.array([lessons.of(photo, field)[0] for photo in photos])
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        scores = table(features.pictures(photos), *features.texts(captions)).float()
    own = scores.diagonal()
    found: dict[str, float] = {}
    for name, ahead in (("t2i", (scores > own[:, None]).sum(1)), ("i2t", (scores > own).sum(0))):
        found |= {f"{name}@{k}": round(100 * float((ahead < k).float().mean()), 2) for k in (1, 5, 10)}
    return found


def show(results: Sequence[dict[str, Any]], photos: int) -> str:
    """A Markdown table: mean ± standard deviation over the seeds."""
    lines = [
        f"| objective | seeds | parameters | text→image R@1 / 5 / 10 | image→text R@1 / 5 / 10 | CPU s a step | "
        f"CPU s for {photos} × {photos} pairs |",
        "|---|---|---|---|---|---|---|",
    ]
    for objective, name in OBJECTIVES.items():
        runs = [one for one in results if one["objective"] == objective]
        if not runs:
            continue
        cells = []
        for way in ("t2i", "i2t"):
            each = [[run[f"{way}@{k}"] for run in runs] for k in (1, 5, 10)]
            cells.append(" / ".join(_spread(values) for values in each))
        cost = [f"{statistics.mean(run[key] for run in runs):.2f}" for key in ("cpu_s_per_step", "cpu_s_table")]
        size = f"{runs[0]['parameters'] / 1e6:.1f} M"
        lines.append(f"| {name} | {len(runs)} | {size} | {' | '.join([*cells, *cost])} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {deviation:.1f}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a recipe value")
    args = parser.parse_args(argv)
    quicken()
    recipe, base = read_recipe(args.recipe, args.set, CompareRecipe), args.recipe.resolve().parent
    cfg, run = recipe.train, Path(recipe.run)
    run.mkdir(parents=True, exist_ok=True)
    file = run / "results.jsonl"
    results = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    done = {(one["objective"], one["seed"]) for one in results if one["steps"] == cfg.steps}
    wanted = [(name, seed) for seed in cfg.seeds for name in cfg.objectives if (name, seed) not in done]
    if wanted:
        lessons = Lessons(recipe, base, frozen_towers(recipe, base))
        lessons.regions.make(1)
        features = Features(lessons, cfg)
        for objective, seed in wanted:
            results.append(one_run(objective, seed, recipe, features))
            with file.open("a") as out:
                out.write(json.dumps(results[-1]) + "\n")
    print(show([one for one in results if one["steps"] == cfg.steps], cfg.measured_photos))


if __name__ == "__main__":
    main()
