"""Trains a BriVL model from a TOML recipe, in one process or several.

    python -m train.pretrain train/recipes/brivl-mini.toml                 # train, or go on after a kill
    python -m train.pretrain train/recipes/brivl-mini.toml --set train.steps=200 --set run=runs/try
    torchrun --nproc-per-node 4 -m train.pretrain train/recipes/brivl-mini.toml            # on four GPUs
    python -m train.pretrain train/recipes/brivl-mini.toml --export brivl_search/models/brivl-mini     # ship it

A run folder holds `last.pt` (towers, momentum towers, queues, optimiser, RNG, step), `log.jsonl`, `curves.png` and
`checkpoint/`, the best momentum towers so far as a brivl-search checkpoint folder. Starting again continues from
`last.pt` with the same loss curve.
"""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from brivl_search.encoders.checkpoint import load_tower
from brivl_search.encoders.config import ModelConfig
from brivl_search.encoders.device import has_fast_bf16, pick_device
from brivl_search.encoders.image_tower import ImageTower
from brivl_search.encoders.text_tower import TextTower
from brivl_search.encoders.tokenizer import TextTokenizer
from train import distributed
from train.cpu import quicken
from train.data import Augment, StepDataset, read_photos
from train.features import cached_views
from train.loop import Session, fit
from train.moco import Clip, MoCo, SentenceCache, TwoTowers
from train.start import load_cnns, load_text_backbone
from train.validate import Validation


def read_recipe(path: Path, changes: list[str]) -> dict[str, Any]:
    """The recipe as a dict, with `--set section.key=value` applied (values are TOML; `data.2.key`: third [[data]])."""
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
            table = table[int(parent)] if isinstance(table, list) else table.setdefault(parent, {})
        table[last] = parsed
    return recipe


def freeze_text(text: TextTower, layers: int) -> None:
    """Freezes the embeddings and the first `layers` layers of the text backbone; 0: nothing."""
    if layers:
        if not hasattr(text.backbone, "embeddings") or not hasattr(text.backbone, "encoder"):
            raise SystemExit("train.frozen_text_layers needs a text backbone of BERT's shape: leave it out")
        for module in (text.backbone.embeddings, *text.backbone.encoder.layer[:layers]):
            module.requires_grad_(False)


def only_its_mlp_learns(text: TextTower) -> bool:
    """Whether a text's vector before the MLP is always the same: nothing there is trained or dropped."""
    drops = [m.p for m in text.backbone.modules() if isinstance(m, nn.Dropout)]
    drops.append(getattr(text.backbone.config, "attention_probs_dropout_prob", 0.0))
    frozen = not any(p.requires_grad for p in text.backbone.parameters())
    return frozen and not any(drops) and text.head.attention is None


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
    rank, processes = distributed.start(cfg.get("device", "auto"))
    if cfg["batch"] % (processes * cfg.get("accumulate", 1)):
        raise SystemExit(f"train.batch = {cfg['batch']} is no multiple of processes × train.accumulate: change one")
    torch.manual_seed(cfg["seed"])  # the same towers everywhere
    device = pick_device(cfg.get("device", "auto"))
    bf16 = bool(cfg.get("bf16", has_fast_bf16(device)))

    # Model: towers of the recipe's sizes, CNN from ImageNet weights, everything else from scratch.
    config = ModelConfig.from_dict(recipe["model"])
    image, text = ImageTower(config.image, config.dim), TextTower(config.text, config.dim)
    init = recipe.get("init", {})
    tokenizer = TextTokenizer((base / init["tokenizer"]).resolve(), config.text.max_length)
    if "cnn" in init:
        load_cnns(image, [(base / name).resolve() for name in init["cnn"]])
    if "text" in init:
        load_text_backbone(text, (base / init["text"]).resolve())
    if "checkpoint" in init:
        for name, tower in (("image", image), ("text", text)):
            if name in init.get("towers", ["image", "text"]):
                load_tower((base / init["checkpoint"]).resolve(), name, tower)
    image.to(device, memory_format=torch.channels_last)
    cached_blocks = cfg.get("cached_blocks", [])
    frozen_blocks = cfg.get("frozen_blocks", cached_blocks)
    freeze_text(text, cfg.get("frozen_text_layers", 0))
    towers = TwoTowers(
        image,
        text,
        cached_blocks=cached_blocks,
        frozen_blocks=frozen_blocks,
        text_chunks=4,
        sentences=SentenceCache() if only_its_mlp_learns(text) else None,
    ).to(device)
    for module in image.frozen_modules(frozen_blocks) if frozen_blocks else []:
        module.requires_grad_(False)

    # Data: photos with captions; crops either made on the fly or, behind frozen stages, cached as feature maps.
    photos = read_photos(recipe["data"], base)
    augment = Augment(config.image.pixels, cfg.get("crop_scale", 0.5), cfg.get("jitter", 0.3))
    cached = val_cached = None
    if cached_blocks:
        settings = {"blocks": cached_blocks, "pixels": config.image.pixels, "augment": augment, "bf16": bf16}
        folder = Path(recipe.get("cache", str(run / "cache")))
        if rank:
            distributed.wait_for_all()  # the first process makes what the others then find
        cached = cached_views(folder, image.eval(), photos.train, views=cfg["views"], **settings)
        val_cached = cached_views(folder, image, photos.val, views=1, **settings)
        if not rank:
            distributed.wait_for_all()
    if device.type == "cpu":
        quicken(image.backbones if bf16 else None)
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
        rank=rank,
        processes=processes,
    )
    validation = Validation(photos, tokenizer, config, cached=val_cached, device=device, bf16=bf16)

    if cfg.get("gradient_checkpointing"):
        text.backbone.gradient_checkpointing_enable({"use_reentrant": False})
        for backbone in image.backbones:
            backbone.net.set_grad_checkpointing(True)

    # Objective and optimiser.
    if cfg["loss"] == "moco":
        keys = ("queue_size", "momentum", "temperature", "in_batch_negatives", "text_weight")
        model: MoCo | Clip = MoCo(towers, config.dim, **{k: cfg[k] for k in keys if k in cfg})
    else:
        keys = ("temperature", "learned_temperature")
        model = Clip(towers, **{k: cfg[k] for k in keys if k in cfg})
    model.to(device)
    torch.manual_seed(cfg["seed"] + rank)  # dropout differs
    groups = parameter_groups(towers, cfg)
    if isinstance(model, Clip) and model.log_temperature.requires_grad:
        groups.append({"params": [model.log_temperature], "lr": cfg["lr"], "base_lr": cfg["lr"], "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=device.type in ("cpu", "cuda"))

    try:
        fit(
            model,
            optimizer,
            dataset,
            validation,
            Session(recipe, run, config, tokenizer, device, bf16, args.stop_after),
        )
    finally:
        distributed.stop()


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
