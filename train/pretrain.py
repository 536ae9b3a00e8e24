"""Trains a BriVL model from a TOML recipe, in one process or several.

    python -m train.pretrain train/recipes/brivl-mini.toml                 # train, or go on after a kill
    python -m train.pretrain train/recipes/brivl-mini.toml --set train.steps=200 --set run=runs/try
    torchrun --nproc-per-node 4 -m train.pretrain train/recipes/brivl-mini.toml            # on four GPUs
    python -m train.pretrain train/recipes/brivl-mini.toml --export brivl_search/models/brivl-mini     # ship it
    python -m train.pretrain train/recipes/own-photos.toml --photos FOLDER     # the bundled model, on your own pairs
    python -m train.pretrain train/recipes/brivl-2.0.toml --dry-run --gpus 112 --gpu a100-40    # how large is that?

A run folder holds `last.pt` (towers, momentum towers, queues, optimiser, RNG, step), `previous.pt` (the state before),
`log.jsonl`, `curves.png` and `checkpoint/`, the best momentum towers so far as a brivl-search checkpoint folder. Ctrl-C
and SIGTERM save first. Starting again continues from `last.pt` with the same loss curve. Exit codes: 0, 1 for what
failed, 2 for a wrong recipe, 130 and 143 for a run that was stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch

from brivl_search.corpus.atomic import appearing
from brivl_search.encoders.brivl.hubness import HUBNESS
from brivl_search.encoders.confidence import CONFIDENCE
from brivl_search.encoders.device import has_fast_bf16, pick_device
from brivl_search.errors import BrivlSearchError, UsageError, system_error
from train import distributed
from train.captions.beside import caption_task
from train.data.build import build_data
from train.model.build import objective, optimizer_of
from train.model.kinds.base import Kind
from train.model.kinds.brivl import BrivlKind
from train.model.kinds.hf import TRAINING, WEIGHTS
from train.model.kinds.load import load_kind
from train.recipe import Recipe, read_recipe
from train.run.cpu import quicken
from train.run.general import General
from train.run.loop import Session, fit
from train.run.validate import Validation


def main(argv: list[str] | None = None) -> None:
    args, parser = arguments(argv)
    run: str | None = None
    try:
        changes = [*args.set, *own_photos(args.photos), *own_photos(args.general, "general")]
        recipe = read_recipe(args.recipe, changes)
        run = recipe.run
        if args.export:
            export(recipe, args.export)
        elif args.dry_run:
            dry_run(args, recipe)
        else:
            train(recipe, args.recipe.resolve().parent, stop_after=args.stop_after)
    except Exception as error:
        known = error if isinstance(error, BrivlSearchError) else system_error(error, run) or could_not(error)
        if known is None:
            raise
        parser.exit(known.exit_code, f"train.pretrain: {known}\n")
    except KeyboardInterrupt:
        parser.exit(130, "train.pretrain: interrupted; the same command goes on from what was saved\n")


def could_not(error: Exception) -> BrivlSearchError | None:
    """A file or a folder that is in the way, and the like, in a line; None: it is nothing of a file."""
    if not isinstance(error, OSError):
        return None
    return BrivlSearchError(f"{error.filename or 'a file'}: {error.strerror or error}: check the path")


def own_photos(given: Path | None, table: str = "photos") -> list[str]:
    """What `--photos` and `--general` change in a recipe: the folder, and the caption file if one is named.

    Raises:
        UsageError: neither is there.
    """
    if given is None:
        return []
    file = given / "captions.jsonl" if given.is_dir() else given
    if not file.is_file():
        raise UsageError(f"--{table} {given}: there is no {file}: give a folder with captions.jsonl, or a caption file")
    values = {"folder": str(file.resolve().parent), "file": file.name}
    if table == "general":
        return [f"general=[{{{', '.join(f'{key} = {json.dumps(value)}' for key, value in values.items())}}}]"]
    return [f"data.0.{key}={json.dumps(value)}" for key, value in values.items()]


def train(recipe: Recipe, base: Path, *, stop_after: int | None = None) -> None:
    """The whole run, or what is left of it. `base` is the folder that the recipe's paths are relative to.

    Raises:
        BrivlSearchError: the recipe, the weights or the data cannot be used, or the loss is not finite any more.
    """
    cfg, run = recipe.train, Path(recipe.run)
    run.mkdir(parents=True, exist_ok=True)
    rank, processes = distributed.start(cfg.device)
    if cfg.batch % (processes * cfg.accumulate):
        raise UsageError(f"train.batch = {cfg.batch} is no multiple of processes × train.accumulate: change one")
    torch.manual_seed(cfg.seed)  # the same towers everywhere
    device = pick_device(cfg.device)
    bf16 = has_fast_bf16(device) if cfg.bf16 is None else cfg.bf16

    # Model: what [init] names, BriVL's towers or another library's, or random towers of the recipe's sizes.
    kind = load_kind(recipe, base, device)
    for line in notes(recipe, kind, processes) if rank == 0 else ():
        print(f"note: {line}", flush=True)

    # Data: photos with captions; crops either made on the fly or, behind frozen stages, cached as feature maps.
    data = build_data(recipe, base, kind, bf16=bf16, rank=rank, processes=processes)
    validation = Validation(data.photos.val, kind, cached=data.val_cached, device=device, bf16=bf16)
    pairs = Validation(data.general, kind, cached=data.general_cached, device=device, bf16=bf16)
    general = General(pairs, validation, asked=bool(recipe.general or cfg.average))
    if device.type == "cpu":
        quicken(kind.towers.image if bf16 else None)
    if cfg.gradient_checkpointing:
        kind.save_memory()

    # Objective: the momentum towers and the queues are made here. Optimiser: AdamW.
    model = objective(kind.towers, kind.dim, cfg)
    kind.fill_momentum(model.slow)
    if cfg.caption_weight:  # WenLan's caption generator: another task of the image tower
        assert isinstance(kind, BrivlKind)  # the recipe has checked it
        task = caption_task(recipe, kind.config, kind.towers.image, kind.towers.text, kind.tokenizer, data.photos.train)
        model.caption(task, cfg.caption_weight)
    model.to(device)
    torch.manual_seed(cfg.seed + rank)  # dropout differs
    optimizer = optimizer_of(model, kind.towers, cfg, device)
    session = Session(recipe, run, kind, device, bf16, stop_after)
    try:
        fit(model, optimizer, data.steps, validation, general, session)
    finally:
        distributed.stop()


def notes(recipe: Recipe, kind: Kind, processes: int) -> list[str]:
    """What a recipe does that one might not expect of it."""
    cfg = recipe.train
    said = [f"train.{key} changes nothing in this recipe" for key in cfg.unused()]
    if (cfg.accumulate > 1 or processes > 1) and kind.tracks_batches:
        said.append(
            "BatchNorm is not frozen (model.image.freeze_bn): each part of a batch is normalised by its own "
            f"{cfg.batch // cfg.accumulate // processes} photos, so that this is not the training of one large batch"
        )
    if kind.pixels.resize == "patches":
        said.append(f"{kind.name} takes pictures as patches: they are cropped, and neither mirrored nor coloured")
    return said


def arguments(argv: list[str] | None) -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    """The command line, and its parser for errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--photos", type=Path, help="the first [[data]] table's folder, or its caption file")
    parser.add_argument("--general", type=Path, help="pairs of all sorts, as the [[general]] table: what is forgotten")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a recipe value")
    parser.add_argument("--export", type=Path, help="write the run's best checkpoint here and stop")
    parser.add_argument("--stop-after", type=int, help="end this session at this step (the schedule stays)")
    dry = parser.add_argument_group("a run's size, before it is begun (train/size/dry_run.py)")
    dry.add_argument("--dry-run", action="store_true", help="print parameters, memory, FLOPs and days; train nothing")
    dry.add_argument("--gpus", type=int, default=8)
    dry.add_argument("--gpu", default="a100", help="v100, a100-40, a100 (80 GB), h100, h200, rtx4090, ...")
    dry.add_argument("--mfu", type=float, default=0.1, help="share of the GPU's peak that is assumed (0.1)")
    dry.add_argument("--tokens", type=int, default=0, help="length of the texts; by default the longest")
    return parser.parse_args(argv), parser


def dry_run(args: argparse.Namespace, recipe: Recipe) -> None:
    """Prints what the run would take."""
    from train.size import dry_run as dry

    if recipe.init.foreign is not None:
        raise UsageError(f"--dry-run counts BriVL's towers; {recipe.init.foreign} is of another library")
    if args.gpu not in dry.GPUS and args.gpu not in dry.ALIASES:
        raise SystemExit(f"--gpu {args.gpu} is not known: one of {', '.join([*dry.GPUS, *dry.ALIASES])}")
    config = recipe.config
    found = dry.sizes(config, recipe.train, tokens=args.tokens)
    tokens = args.tokens or config.text.max_length
    print(dry.report(args.recipe, recipe, found, gpus=args.gpus, gpu=args.gpu, mfu=args.mfu, tokens=tokens))


def export(recipe: Recipe, target: Path) -> None:
    """Copies the run's best checkpoint into a folder for shipping; a file is whole or not there, settings come last.

    Raises:
        UsageError: the folder holds weights that would be left beside the new ones.
    """
    kept = Path(recipe.run) / "checkpoint"
    config = next((kept / name for name in (TRAINING, "config.json") if (kept / name).is_file()), None)
    if config is None:
        raise SystemExit(f"{recipe.run} has no checkpoint yet: train first")
    ship(sorted(kept.iterdir(), key=lambda path: (path.suffix == ".json", path == config)), target)
    facts = json.loads(config.read_text(encoding="utf-8"))
    if facts.get("training", facts).get("step") == 0:
        print("note: this is what the run started from: no step of it scored better", flush=True)
    name = encoder_name(recipe, target)
    print(f"wrote {target}, for --encoder {name}")
    print(f"it has no `match` until `brivl-search models calibrate {name}` has measured one")


def ship(files: list[Path], target: Path) -> None:
    """Copies a checkpoint's files, in their order, into a folder.

    Raises:
        UsageError: the folder holds other weights.
    """
    files = [path for path in files if path.is_file() and not path.name.startswith(".")]  # those are of a killed save
    names = {path.name for path in files}
    target.mkdir(parents=True, exist_ok=True)
    for name in {HUBNESS, CONFIDENCE} - names:  # they were fitted to what was there before
        (target / name).unlink(missing_ok=True)
    others = sorted(path.name for path in target.iterdir() if path.suffix in WEIGHTS and path.name not in names)
    if others:
        raise UsageError(f"--export {target}: it holds another model ({', '.join(others[:3])}): give a new folder")
    for path in files:
        if not (target / path.name).exists() or not path.samefile(target / path.name):
            with appearing(target / path.name) as (temporary,):
                shutil.copy2(path, temporary)


def encoder_name(recipe: Recipe, folder: Path) -> str:
    """What `--encoder` calls a folder that the recipe's run wrote."""
    kind = (recipe.init.foreign or "").partition(":")[0]
    return f"{kind}:{folder}" if kind else str(folder)


if __name__ == "__main__":
    main()
