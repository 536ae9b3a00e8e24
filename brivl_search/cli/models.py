"""The verbs of `models`: what encoders there are, and what to do with checkpoints."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Annotated

import typer

from brivl_search.cli.app import app, json_wanted
from brivl_search.cli.captioned import NO_PHOTOS, Captioned, takes_captioned
from brivl_search.cli.options import (
    DeviceOption,
    PrecisionKind,
    PrecisionOption,
    Quiet,
    ReportOption,
    RuntimeKind,
    RuntimeOption,
)
from brivl_search.errors import EncoderError, UsageError

models = typer.Typer(
    name="models",
    help="List, measure, convert, check and calibrate encoders.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(models)


@models.callback()
def _group() -> None:
    pass


@models.command("list")
def list_models(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="FOLDER", help="Also checkpoints in these folders.")
    ] = None,
    on_disk: Annotated[bool, typer.Option("--on-disk", help="Only what lies on this disk.")] = False,
    form: ReportOption = None,
) -> None:
    """List encoders: languages, dimensions, size, what is on this disk, and which to take for what.

    Then what --rerank-with and --captioner take.
    """
    import json

    from brivl_search.cli import texts
    from brivl_search.encoders.inventory import helpers, inventory

    entries = [entry for entry in inventory(folders or ()) if entry.disk or not on_disk]
    others = [one for one in helpers(folders or ()) if one.disk or not on_disk]
    if json_wanted(form):
        listed = [entry.to_dict() for entry in entries] + [one.to_dict() for one in others]
        typer.echo(json.dumps(listed, ensure_ascii=False, indent=2))
    else:
        from brivl_search.output.models import show_models

        show_models(entries, texts.purposes(), others)


@models.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `models list` shows it.")],
    form: ReportOption = None,
) -> None:
    """Show what is known of one encoder: notes, and published retrieval figures with their sources."""
    import difflib
    import json

    from brivl_search.encoders.inventory import helpers, inventory

    folder = Path(re.sub(r"\A(hf|open_clip):", "", name))
    entries = {entry.name: entry for entry in inventory([folder] if os.path.isdir(folder) else ())}
    here = (one for one in entries.values() if any(disk.path == folder for disk in one.disk))
    entry = entries.get(name) or next(here, None)
    if entry is None and any(one.name == name for one in helpers() if one.disk):
        raise UsageError(f"no encoder {name!r}: it is a matcher or captioner: brivl-search models list shows it")
    if entry is None:
        near = difflib.get_close_matches(name, entries, 1)
        advice = f"did you mean {near[0]}?" if near else "brivl-search models list shows them"
        raise UsageError(f"no encoder {name!r}: {advice}")
    if json_wanted(form):
        typer.echo(json.dumps(entry.to_dict(), ensure_ascii=False, indent=2))
    else:
        from brivl_search.output.models import show_model

        show_model(entry)


@models.command()
def bench(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Any names that build-index takes.")],
    images: Annotated[
        Path | None, typer.Option("--images", metavar="FOLDER", help="Pictures to measure with [default: made ones].")
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="S", help="That the pictures of each are measured for.")] = 8.0,
    runtime: RuntimeOption = RuntimeKind.auto,
    precision: PrecisionOption = PrecisionKind.auto,
    device: DeviceOption = "auto",
    form: ReportOption = None,
    quiet: Quiet = False,
) -> None:
    """Measure encoders on this machine, beside brivl-mini: images/s, texts/s, memory, start-up.

    Each is measured in a process of its own. One that cannot be had is named, and the rest measured; then the exit code
    is 1.
    """
    import json

    from brivl_search.encoders import speeds
    from brivl_search.evaluation import speed
    from brivl_search.output import Bar, say, warn
    from brivl_search.output.models import show_speeds

    if not (seconds > 0 and math.isfinite(seconds)):
        raise UsageError(f"--seconds {seconds:g}: give a number above 0, such as 8")
    pictures: list[Path] = []
    if images is not None:
        from brivl_search.embedding.pictures import find_pictures

        pictures = [Path(file.path) for file in find_pictures([images]).files[: speed.MOST_PICTURES]]
    options = {"device": device, "runtime": runtime.value, "precision": precision.value}
    with Bar(quiet=quiet) as bar:
        found = speed.measure_all(
            names, options, pictures=pictures, seconds=seconds, told=lambda name: bar.phase(f"measuring {name}", None)
        )
    measured = [one for one in found if isinstance(one, speed.Speed)]
    failed = [one for one in found if isinstance(one, speed.Failed)]
    speeds.keep(measured)
    if json_wanted(form):
        typer.echo(json.dumps([one.to_dict() for one in found], ensure_ascii=False, indent=2))
    else:
        show_speeds(found)
    for one in failed:
        warn(f"{one.name} was not measured: {one.why}")
    if measured and not quiet:
        say("kept: brivl-search models list shows it; of folders, brivl-search models list FOLDER")
    if failed:
        raise EncoderError(
            f"{len(failed)} of {len(found)} encoders could not be measured: {', '.join(one.name for one in failed)}"
        )


@models.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="official:PATH", help="A BriVL .pth; @MODEL names its sizes.")],
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="The new checkpoint folder.")],
    towers: Annotated[
        str, typer.Option(metavar="NAMES", help="Towers to take: image,text or one of them.")
    ] = "image,text",
    fp32: Annotated[bool, typer.Option("--fp32", help="Full precision [default: float16, half the bytes].")] = False,
    corrected: Annotated[
        bool, typer.Option("--corrected", help="Without the published code's quirks; other vectors than BriVL's.")
    ] = False,
    keep_momentum: Annotated[
        bool, typer.Option("--keep-momentum", help="Also the momentum copies, for going on with the training.")
    ] = False,
) -> None:
    """Turn weights of the published BriVL code into a checkpoint folder."""
    from brivl_search.encoders.brivl.official.checkpoint import OfficialCheckpoint
    from brivl_search.encoders.brivl.official.convert import convert as convert_checkpoint
    from brivl_search.output import say

    if not source.startswith("official:"):
        raise UsageError(
            f"{source}: write official:{source}; only checkpoints of the published BriVL code are converted"
        )
    chosen = [name.strip() for name in towers.split(",")]
    if not set(chosen) <= {"image", "text"}:
        raise UsageError(f"--towers {towers}: name image, text, or image,text")
    done = convert_checkpoint(
        OfficialCheckpoint(source.removeprefix("official:")),
        out,
        towers=[name for name in ("image", "text") if name in chosen],
        half=not fp32,
        parity=not corrected,
        keep_momentum=keep_momentum,
    )
    parts = ", ".join(f"{name} tower {count / 1e6:.1f}M" for name, count in done.parameters.items())
    say(f"{out}: {done.config.name}, {done.config.dim} dimensions, {parts}, {done.bytes / 1e6:,.1f} MB")


@models.command()
@takes_captioned()
def calibrate(
    encoder: Annotated[str, typer.Argument(metavar="ENCODER", help="Any name that build-index takes.")],
    given: Captioned = NO_PHOTOS,
    forget: Annotated[
        bool, typer.Option("--forget", help="Drop what was kept; the encoder's own counts again.")
    ] = False,
    device: DeviceOption = "auto",
    form: ReportOption = None,
    quiet: Quiet = False,
) -> None:
    """Learn what an encoder's cosines mean (`match`), and how to correct photos that are found by every text.

    The first is the probability that text and photo belong together. The second is kept where it brings something.
    """
    import json

    from brivl_search.encoders import calibration, hub_corrections, load_encoder
    from brivl_search.output import Bar, say
    from brivl_search.output.models import hub_lines

    if forget == (given.dataset is not None):
        raise UsageError("give either --dataset FOLDER, photos with captions, or --forget")
    loaded = load_encoder(encoder, device=device)
    if given.dataset is None:
        was = calibration.forget(loaded.fingerprint)
        if hub_corrections.forget(loaded.fingerprint):
            say(f"{loaded.name}: its hub correction is gone; indexes keep theirs until compact --no-hub-correction")
        say(f"{loaded.name}: " + ("its calibration of your own is gone" if was else "there was none of your own"))
        return
    from brivl_search.evaluation.calibrating import calibrate_on

    data = given.load()
    with Bar(quiet=quiet) as bar:
        bar.phase("images and captions", len(data.images) + sum(map(len, data.captions)))
        found, hubs = calibrate_on(data, loaded, bar.advance)
    path = calibration.save(loaded.fingerprint, found)
    if hubs.correction is not None:
        hub_corrections.save(loaded.fingerprint, hubs.correction)
    else:
        hub_corrections.forget(loaded.fingerprint)
    if json_wanted(form):
        out = {"encoder": loaded.name, **found, "file": str(path), "hubs": hubs.to_dict()}
        typer.echo(json.dumps(out, ensure_ascii=False, indent=2))
    else:
        typer.echo(
            f"{loaded.name}: match = σ({found['slope']:.2f} · cosine {found['intercept']:+.2f}), expected calibration "
            f"error {found['ece']:.3f} over {found['pairs']:,.0f} pairs"
        )
        for line in hub_lines(hubs):
            typer.echo(line)
    if not quiet:
        say(f"kept in {path}: queries with this encoder show it from now on")
        if hubs.correction is not None:
            say("new indexes correct hubs so; brivl-search compact brings it into one that is there")


@models.command()
@takes_captioned()
def runtimes(
    encoder: Annotated[str, typer.Argument(metavar="ENCODER", help="Any name that build-index takes.")],
    given: Captioned = NO_PHOTOS,
    form: ReportOption = None,
    quiet: Quiet = False,
) -> None:
    """Measure what computes an encoder fastest here, and its recall; `--runtime auto` follows it from then on."""
    import json

    from brivl_search.encoders.cpu import cpu_name
    from brivl_search.encoders.runtimes import measured, store
    from brivl_search.evaluation.runtimes import measure
    from brivl_search.output import Bar, say
    from brivl_search.output.models import show_runtimes

    data = None if given.dataset is None else given.load()
    with Bar(quiet=quiet) as bar:
        fingerprint, found = measure(encoder, data, bar.note, bar.advance)
    path = measured.save(fingerprint, found)
    best = measured.fastest(found)
    if json_wanted(form):
        chosen = None if best is None else str(best.choice)
        ways = [one.to_dict() for one in found]
        out = {"encoder": encoder, "cpu": cpu_name(), "ways": ways, "best": chosen}
        typer.echo(json.dumps({**out, "texts": store.small_texts(fingerprint)}, indent=2))
    else:
        show_runtimes(found, best)
    if told := store.small_texts(fingerprint):
        say(told)
    if not quiet:
        say(
            f"kept in {path}; without --dataset, only ways that keep the vectors are chosen"
            if data is None
            else f"kept in {path}"
        )


@models.command()
def check(
    name: Annotated[str, typer.Argument(metavar="ENCODER", help="official:PATH, or a folder converted from it.")],
    sample: Annotated[
        Path, typer.Option(metavar="FOLDER", help="BriVL's sample: example.jsonl, np_img.npy, np_text.npy, pictures.")
    ] = Path("../shared/data/brivl-official-sample"),
    device: DeviceOption = "auto",
    form: ReportOption = None,
) -> None:
    """Compare an encoder with the vectors that BriVL's own code gave for its sample; exit code 1 if they differ."""
    import json
    from dataclasses import asdict

    from brivl_search.encoders.brivl.encoder import BriVLEncoder
    from brivl_search.encoders.brivl.official.parity import TOLERANCE, check_sample
    from brivl_search.encoders.registry import load_encoder
    from brivl_search.output import show, table

    encoder = load_encoder(name, device=device, precision="fp32")
    if not isinstance(encoder, BriVLEncoder):
        raise UsageError(f"{name} is not a BriVL model: give official:PATH or a folder converted from it")
    report = check_sample(encoder, sample)
    if json_wanted(form):
        typer.echo(json.dumps({**asdict(report), "tolerance": TOLERANCE, "ok": report.ok}, indent=2))
    else:
        out = table(f"text · image of {sample}")
        out.add_column("picture")
        for title in ("score", "published", "difference", "image cosine", "text cosine"):
            out.add_column(title, justify="right")
        for row in zip(
            report.names, report.scores, report.published, report.image_cosines, report.text_cosines, strict=True
        ):
            picture, score, published, image, text = row
            out.add_row(
                picture, f"{score:.3f}", f"{published:.3f}", f"{score - published:+.3f}", f"{image:.4f}", f"{text:.4f}"
            )
        show(out)
    if not report.ok:
        raise EncoderError(f"{name} does not reproduce the sample: a score is off by more than {TOLERANCE}")
