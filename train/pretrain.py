"""Trains a BriVL model from a TOML recipe, on one machine.

    python -m train.pretrain train/recipes/brivl-mini.toml                 # train, or go on after a kill
    python -m train.pretrain train/recipes/brivl-mini.toml --set train.steps=200 --set run=runs/try
    python -m train.pretrain train/recipes/brivl-mini.toml --export brivl_search/models/brivl-mini     # ship it

A run folder holds `last.pt` (towers, momentum towers, queues, optimiser, RNG, step), `log.jsonl`, `curves.png` and
`checkpoint/`, the best momentum towers so far as a brivl-search checkpoint folder. Starting again continues from
`last.pt` with the same loss curve.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn
from torch.utils.data import DataLoader

from brivl_search.encoders.checkpoint import load_tower, save_checkpoint
from brivl_search.encoders.config import ModelConfig
from brivl_search.encoders.device import has_fast_bf16, keep_freed_memory, pick_device
from brivl_search.encoders.image_tower import ImageTower
from brivl_search.encoders.text_tower import TextTower
from brivl_search.encoders.tokenizer import TextTokenizer
from train.curves import plot
from train.data import Augment, StepDataset, read_photos
from train.features import cached_views
from train.moco import Clip, MoCo, TwoTowers
from train.validate import Validation


def read_recipe(path: Path, changes: list[str]) -> dict[str, Any]:
    """The recipe as a dict, with `--set section.key=value` applied (values are TOML)."""
    recipe = tomllib.loads(path.read_text(encoding="utf-8"))
    for change in changes:
        name, _, value = change.partition("=")
        try:
            parsed = tomllib.loads(f"v = {value}")["v"]
        except tomllib.TOMLDecodeError:
            parsed = value
        *parents, last = name.split(".")
        table = recipe
        for parent in parents:
            table = table.setdefault(parent, {})
        table[last] = parsed
    return recipe


def load_backbones(tower: ImageTower, paths: list[Path]) -> None:
    """ImageNet weights by timm's key names; a classifier in the file is left out, anything else must fit."""
    from safetensors.torch import load_file

    if len(paths) != len(tower.backbones):
        raise SystemExit(f"init.cnn names {len(paths)} files for {len(tower.backbones)} backbones: give one each")
    for backbone, path in zip(tower.backbones, paths, strict=True):
        state = {k: v for k, v in load_file(str(path)).items() if not k.startswith("classifier.")}
        missing, unexpected = backbone.net.load_state_dict(state, strict=False)
        if missing or unexpected:
            raise SystemExit(f"{path} does not fit {backbone.name}: missing {missing[:3]}, unknown {unexpected[:3]}")


def depthwise_in_float32(backbones: nn.Module) -> None:
    """bf16 depthwise convolutions have a slow backward pass on CPUs; the rest of the network stays bf16."""
    for module in backbones.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            inner = module.forward

            def forward(x: torch.Tensor, inner: Any = inner) -> torch.Tensor:
                if not torch.is_grad_enabled():
                    return inner(x)
                with torch.autocast("cpu", enabled=False):
                    return inner(x.float())

            module.forward = forward  # type: ignore[method-assign]


def parameter_groups(towers: TwoTowers, cfg: dict[str, Any]) -> list[dict[str, Any]]:
    """AdamW groups: CNN and text backbone at their own rates; no weight decay on biases, norms and embeddings."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in towers.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = cfg["lr"]
        if name.startswith("image.backbones"):
            rate *= cfg.get("cnn_lr_factor", 1.0)
        elif name.startswith("text."):
            rate *= cfg.get("text_lr_factor", 1.0)
        decay = cfg.get("weight_decay", 0.0) if parameter.ndim > 1 and "embeddings" not in name else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": ps, "lr": lr, "base_lr": lr, "weight_decay": wd} for (lr, wd), ps in groups.items()]


def rate_at(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then cosine to zero; a factor on every group's rate."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def save_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, best: float) -> None:
    """Writes last.pt beside its place and renames it: a kill leaves the old one or the new one."""
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "step": step,
        "best": best,
    }
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def trim_log(path: Path, step: int) -> list[dict[str, Any]]:
    """Drops log lines past `step` (written after the last checkpoint, before the kill) and returns the rest."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    kept = [line for line in lines if line["step"] <= step]
    path.write_text("".join(json.dumps(line) + "\n" for line in kept))
    return kept


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a recipe value")
    parser.add_argument("--export", type=Path, help="write the run's best checkpoint here and stop")
    parser.add_argument("--stop-after", type=int, help="end this session at this step (the schedule stays)")
    args = parser.parse_args(argv)
    recipe = read_recipe(args.recipe, args.set)
    base = args.recipe.resolve().parent
    run = Path(recipe["run"])
    if args.export:
        export(run, args.export)
        return
    run.mkdir(parents=True, exist_ok=True)
    cfg = recipe["train"]
    torch.manual_seed(cfg["seed"])
    device = pick_device(cfg.get("device", "auto"))
    bf16 = bool(cfg.get("bf16", has_fast_bf16(device)))

    # Model: towers of the recipe's sizes, CNN from ImageNet weights, everything else from scratch.
    config = ModelConfig.from_dict(recipe["model"])
    image, text = ImageTower(config.image, config.dim), TextTower(config.text, config.dim)
    init = recipe.get("init", {})
    tokenizer = TextTokenizer((base / init["tokenizer"]).resolve(), config.text.max_length)
    if "cnn" in init:
        load_backbones(image, [(base / name).resolve() for name in init["cnn"]])
    if "checkpoint" in init:
        for name, tower in (("image", image), ("text", text)):
            if name in init.get("towers", ["image", "text"]):
                load_tower((base / init["checkpoint"]).resolve(), name, tower)
    image.to(device, memory_format=torch.channels_last)
    cached_blocks = cfg.get("cached_blocks", [])
    frozen_blocks = cfg.get("frozen_blocks", cached_blocks)
    towers = TwoTowers(image, text, cached_blocks=cached_blocks, frozen_blocks=frozen_blocks, text_chunks=4).to(device)
    for module in image.frozen_modules(frozen_blocks) if frozen_blocks else []:
        module.requires_grad_(False)

    # Data: photos with captions; crops either made on the fly or, behind frozen stages, cached as feature maps.
    photos = read_photos(recipe["data"], base)
    augment = Augment(config.image.pixels, cfg.get("crop_scale", 0.5), cfg.get("jitter", 0.3))
    cached = val_cached = None
    if cached_blocks:
        settings = {"blocks": cached_blocks, "pixels": config.image.pixels, "augment": augment, "bf16": bf16}
        folder = Path(recipe.get("cache", str(run / "cache")))
        cached = cached_views(folder, image.eval(), photos.train, views=cfg["views"], **settings)
        val_cached = cached_views(folder, image, photos.val, views=1, **settings)
    if device.type == "cpu":
        keep_freed_memory()
        if bf16:
            depthwise_in_float32(image.backbones)
    dataset = StepDataset(
        photos.train,
        tokenizer,
        batch=cfg["batch"],
        captions=cfg.get("captions_per_image", 1),
        seed=cfg["seed"],
        pixels=config.image.pixels,
        augment=augment,
        cached=cached,
        plain_view=cfg.get("plain_view", 0.2),
        token_dropout=cfg.get("token_dropout", 0.0),
    )
    validation = Validation(photos, tokenizer, config, cached=val_cached, device=device, bf16=bf16)

    # Objective and optimiser.
    if cfg["loss"] == "moco":
        keys = ("queue_size", "momentum", "temperature", "in_batch_negatives")
        model: MoCo | Clip = MoCo(towers, config.dim, **{k: cfg[k] for k in keys if k in cfg})
    else:
        keys = ("temperature", "learned_temperature")
        model = Clip(towers, **{k: cfg[k] for k in keys if k in cfg})
    model.to(device)
    groups = parameter_groups(towers, cfg)
    if isinstance(model, Clip) and model.log_temperature.requires_grad:
        groups.append({"params": [model.log_temperature], "lr": cfg["lr"], "base_lr": cfg["lr"], "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=device.type in ("cpu", "cuda"))

    # Resume.
    step, best, log_path = 0, -1.0, run / "log.jsonl"
    if (run / "last.pt").is_file():
        state = torch.load(run / "last.pt", map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        rates = [group["base_lr"] for group in optimizer.param_groups]
        optimizer.load_state_dict(state["optimizer"])
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["base_lr"] = rate  # the recipe's, also where it was changed for the rest of the run
        torch.set_rng_state(state["rng"].cpu())
        if state["cuda_rng"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all([rng.cpu() for rng in state["cuda_rng"]])
        step, best = state["step"], state["best"]
    history = trim_log(log_path, step)

    # The loop.
    steps, every = int(cfg["steps"]), int(cfg.get("eval_every", 200))
    last = min(steps, args.stop_after or steps)
    workers = int(cfg.get("workers", 2))
    ahead = {"num_workers": workers, "prefetch_factor": 4} if workers else {}
    # Its own generator: starting a loader draws a number, and the dropout of a resumed run must not see that.
    loader = DataLoader(dataset, batch_size=None, sampler=range(step, last), generator=torch.Generator(), **ahead)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns) as progress, log_path.open("a", buffering=1) as log:
        task = progress.add_task("training", total=steps, completed=step)
        window, since = [], time.perf_counter()
        recall = next((line["recall"] for line in reversed(history) if "recall" in line), None)
        model.train()
        for batch in loader:
            rate = rate_at(step, steps, int(cfg.get("warmup", 100)))
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * rate
            batch = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = model(batch["images"], batch["token_ids"], batch["token_mask"], batch["ids"])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_([p for g in groups for p in g["params"]], cfg.get("clip_grad", 1.0))
            optimizer.step()
            step += 1
            window.append(loss.item())
            if not math.isfinite(window[-1]):
                raise SystemExit(f"the loss is {window[-1]} at step {step}: lower train.lr, or set train.bf16=false")
            if step % 20 == 0 or step == last:
                speed = len(window) * cfg["batch"] / (time.perf_counter() - since)
                line: dict[str, Any] = {
                    "step": step,
                    "loss": sum(window) / len(window),
                    "images_per_s": speed,
                    "rate": rate,
                }
                if step % every == 0 or step == last:
                    line["recall"] = validation.measure(model.slow, final=step == steps)
                    recall = line["recall"]
                    score = validation.score(recall)
                    if score >= best:
                        best = score
                        kept = replace(config, training={"recipe": recipe_facts(recipe), "step": step, "val": recall})
                        save_checkpoint(run / "checkpoint", kept, model.slow.image, model.slow.text, tokenizer)
                    model.train()
                log.write(
                    json.dumps(line) + "\n"
                )  # before the state: what follows the state's step is dropped on resume
                history.append(line)
                if "recall" in line:
                    save_state(run / "last.pt", model, optimizer, step, best)
                    plot(history, run / "curves.png")
                progress.update(
                    task, description=f"loss {line['loss']:.3f} · {speed:.0f} img/s · {validation.short(recall)}"
                )
                window, since = [], time.perf_counter()
            progress.update(task, completed=step)
    print(f"{run}: step {step} of {steps}, best validation {validation.name} {best:.1f}")


def recipe_facts(recipe: dict[str, Any]) -> dict[str, Any]:
    """What of the recipe goes into a checkpoint's config.json: all but the model, which is there already."""
    return {key: value for key, value in recipe.items() if key != "model"}


def export(run: Path, target: Path) -> None:
    """Copies the run's best checkpoint into a folder for shipping."""
    import shutil

    if not (run / "checkpoint" / "config.json").is_file():
        raise SystemExit(f"{run} has no checkpoint yet: train first")
    target.mkdir(parents=True, exist_ok=True)
    for file in (run / "checkpoint").iterdir():
        shutil.copy2(file, target / file.name)
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
