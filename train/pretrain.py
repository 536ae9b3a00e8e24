"""Trains a BriVL model from a TOML recipe, in one process or several.

    python -m train.pretrain train/recipes/brivl-mini.toml                 # train, or go on after a kill
    python -m train.pretrain train/recipes/brivl-mini.toml --set train.steps=200 --set run=runs/try
    torchrun --nproc-per-node 4 -m train.pretrain train/recipes/brivl-mini.toml            # on four GPUs
    python -m train.pretrain train/recipes/brivl-mini.toml --export brivl_search/models/brivl-mini     # ship it
    python -m train.pretrain train/recipes/brivl-2.0.toml --dry-run --gpus 112 --gpu a100-40    # how large is that?

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

from brivl_search.encoders.brivl.checkpoint import load_tower
from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.image_tower import ImageTower
from brivl_search.encoders.brivl.text_tower import TextTower
from brivl_search.encoders.brivl.tokenizer import TextTokenizer
from brivl_search.encoders.device import has_fast_bf16, pick_device
from train import distributed
from train.data.features import cached_views
from train.data.photos import Augment, StepDataset, held_out, read_photos
from train.data.stream import ShardSteps, read_sources
from train.model.moco import Clip, MoCo, SentenceCache, TwoTowers
from train.model.start import load_cnns, load_momentum, load_text_backbone
from train.run.cpu import quicken
from train.run.loop import Session, fit
from train.run.validate import Validation


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


def build_towers(config: ModelConfig, cfg: dict[str, Any]) -> TwoTowers:
    """Both towers with random weights; what the `[train]` table freezes is frozen."""
    image, text = ImageTower(config.image, config.dim), TextTower(config.text, config.dim)
    cached_blocks = cfg.get("cached_blocks", [])
    frozen_blocks = cfg.get("frozen_blocks", cached_blocks)
    freeze_text(text, cfg.get("frozen_text_layers", 0))
    for module in image.frozen_modules(frozen_blocks) if frozen_blocks else []:
        module.requires_grad_(False)
    for backbone in image.backbones:
        for name in cfg.get("frozen_cnn_modules", []):
            backbone.net.get_submodule(name).requires_grad_(False)
    frozen = cfg.get("frozen_towers", [])
    towers = {"image": image, "text": text}
    for name in frozen:
        if name not in towers:
            raise SystemExit(f'train.frozen_towers names "image" or "text", not {name!r}')
        towers[name].requires_grad_(False)
    whole = "text" in frozen
    sentences = SentenceCache(whole=whole) if whole or only_its_mlp_learns(text) else None
    return TwoTowers(
        image,
        text,
        cached_blocks=cached_blocks,
        frozen_blocks=frozen_blocks,
        text_chunks=4,
        sentences=sentences,
        frozen=frozen,
    )


def objective(towers: TwoTowers, dim: int, cfg: dict[str, Any]) -> MoCo | Clip:
    """The loss that `train.loss` names, over the towers and their slow copies."""
    if cfg["loss"] == "moco":
        keys = ("queue_size", "momentum", "temperature", "in_batch_negatives", "text_weight")
        return MoCo(towers, dim, **{k: cfg[k] for k in keys if k in cfg})
    return Clip(towers, **{k: cfg[k] for k in ("temperature", "learned_temperature") if k in cfg})


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a recipe value")
    parser.add_argument("--export", type=Path, help="write the run's best checkpoint here and stop")
    parser.add_argument("--stop-after", type=int, help="end this session at this step (the schedule stays)")
    dry = parser.add_argument_group("a run's size, before it is begun (train/size/dry_run.py)")
    dry.add_argument("--dry-run", action="store_true", help="print parameters, memory, FLOPs and days; train nothing")
    dry.add_argument("--gpus", type=int, default=8)
    dry.add_argument("--gpu", default="a100", help="v100, a100-40, a100 (80 GB), h100, h200, rtx4090, ...")
    dry.add_argument("--mfu", type=float, default=0.1, help="share of the GPU's peak that is assumed (0.1)")
    dry.add_argument("--tokens", type=int, default=0, help="length of the texts; by default the longest")
    args = parser.parse_args(argv)
    recipe = read_recipe(args.recipe, args.set)
    base = args.recipe.resolve().parent
    run = Path(recipe["run"])
    if args.export:
        export(run, args.export)
        return
    if args.dry_run:
        dry_run(args, recipe)
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
    towers = build_towers(config, cfg)
    image, text = towers.image, towers.text
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
    towers.to(device)
    image.to(memory_format=torch.channels_last)
    cached_blocks = cfg.get("cached_blocks", [])

    # Data: photos with captions; crops either made on the fly or, behind frozen stages, cached as feature maps.
    streamed = recipe.get("shards", [])
    photos = held_out(recipe.get("data", []), base) if streamed else read_photos(recipe["data"], base)
    look = ("crop_scale", 0.5), ("jitter", 0.3), ("hue", 0.0), ("grey", 0.0)
    augment = Augment(config.image.pixels, *(float(cfg.get(name, default)) for name, default in look))
    cached = val_cached = None
    if cached_blocks and streamed:
        raise SystemExit("train.cached_blocks caches every photo, which [[shards]] are too many for: use frozen_blocks")
    if cached_blocks:
        settings = {"blocks": cached_blocks, "pixels": config.image.pixels, "augment": augment, "bf16": bf16}
        folder = Path(recipe.get("cache", str(run / "cache")))
        with distributed.first_process_first():
            cached = cached_views(folder, image.eval(), photos.train, views=cfg["views"], **settings)
            val_cached = cached_views(folder, image, photos.val, views=1, **settings)
    if device.type == "cpu":
        quicken(image.backbones if bf16 else None)
    common = {
        "batch": cfg["batch"],
        "captions": cfg.get("captions_per_image", 1),
        "seed": cfg["seed"],
        "pixels": config.image.pixels,
        "augment": augment,
        "plain_view": cfg.get("plain_view", 0.2),
        "token_dropout": cfg.get("token_dropout", 0.0),
        "flip": cfg.get("flip", 0.5),
        "rank": rank,
        "processes": processes,
    }
    dataset: StepDataset | ShardSteps
    if streamed:
        with distributed.first_process_first():  # it makes the indexes that the others then find
            sources = read_sources(streamed, base, run / "indexes")
        dataset = ShardSteps(sources, tokenizer, buffer=cfg.get("shuffle_buffer", 65_536), **common)
    else:
        dataset = StepDataset(photos.train, tokenizer, cached=cached, **common)
    validation = Validation(photos, tokenizer, config, cached=val_cached, device=device, bf16=bf16)

    if cfg.get("gradient_checkpointing"):
        text.backbone.gradient_checkpointing_enable({"use_reentrant": False})
        for backbone in image.backbones:
            backbone.net.set_grad_checkpointing(True)

    # Objective and optimiser.
    model = objective(towers, config.dim, cfg)
    if "checkpoint" in init:
        load_momentum(model.slow, towers, (base / init["checkpoint"]).resolve(), init.get("towers", ["image", "text"]))
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


def dry_run(args: argparse.Namespace, recipe: dict[str, Any]) -> None:
    """Prints what the run would take."""
    from train.size import dry_run as dry

    if args.gpu not in dry.GPUS and args.gpu not in dry.ALIASES:
        raise SystemExit(f"--gpu {args.gpu} is not known: one of {', '.join([*dry.GPUS, *dry.ALIASES])}")
    config = ModelConfig.from_dict(recipe["model"])
    found = dry.sizes(config, recipe["train"], build_towers, tokens=args.tokens)
    tokens = args.tokens or config.text.max_length
    print(dry.report(args.recipe, recipe, found, gpus=args.gpus, gpu=args.gpu, mfu=args.mfu, tokens=tokens))


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
