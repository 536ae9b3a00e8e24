"""Makes training pairs of crawled records, after RUC-CAS-WenLan: merge sources, drop the broken, doubled and private.

    python -m train.pairs.prepare out/ --source news=news.jsonl --source baike=baike/records.jsonl
    python -m train.pairs.prepare out/ --source news=news.jsonl --rules mine.toml --set image.min_side=200
    python -m train.pairs.prepare out/ --source weibo=weibo.jsonl --no-images       # texts alone, before downloading
    python -m train.pairs.prepare out/ --source news=news.jsonl --score brivl-mini  # rank what is kept

A source is a file of JSON lines: an image file (`path`, `image` or `file`, relative to the source's folder; or a member
of a tar, CONTAINER::MEMBER), `title` and `text`; a `url` is carried along. `out/pairs.jsonl` then has one line a pair,

    {"image": "/…/1.jpg", "zh": ["…"], "en": ["…"], "source": "news", "url": "…", "width": 640, "height": 480}

which `train.pairs.pack` takes, and `out/report.json` says what every rule removed, with examples. A pair whose text
says little about its picture stays: such weak pairs are what BriVL trains on; `--score` writes the cosine of each into
`out/pairs.scored.jsonl`. Killed at any moment, the same command goes on and ends with the same output.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from brivl_search.corpus.atomic import appearing
from brivl_search.corpus.decode_pool import Decoded, decode_all, default_workers
from brivl_search.corpus.images import PixelSpec
from brivl_search.corpus.walk import ImageFile
from brivl_search.errors import BrivlSearchError, CorpusError, UsageError
from train.pairs.images import HASH_SIDE
from train.pairs.rules import Rules, judge_record, read_rules
from train.pairs.sources import Fields, Record, Source, judged_records
from train.pairs.store import PairStore
from train.pairs.texts import TextRules

COMMIT_EVERY = 5000


def _identity(sources: Sequence[Source], rules: Rules) -> str:
    stats = [[s.name, str(s.file.resolve()), s.file.stat().st_size, s.file.stat().st_mtime_ns] for s in sources]
    return hashlib.sha256(json.dumps([stats, repr(rules)]).encode()).hexdigest()


def prepare(
    sources: Sequence[Source],
    out: Path,
    rules: Rules,
    *,
    workers: int,
    progress: Callable[[int], None] | None = None,
    commit_every: int = COMMIT_EVERY,
) -> dict[str, Any]:
    """Writes `pairs.jsonl` and `report.json`; the report.

    Args:
        sources: read in order; of near-duplicates the first stays.
        out: made if need be; empty, or of the same sources and rules.
        workers: processes for texts, and as many for images; 0: everything in this one.
        progress: called with the number of records done, at every commit.

    Raises:
        UsageError: a source that is not there, or `out` is of others.
        CorpusError: worker processes die again and again.
    """
    for source in sources:
        if not source.file.is_file():
            raise UsageError(f"--source {source.name}={source.file}: no such file")
    out.mkdir(parents=True, exist_ok=True)
    store = PairStore(out / "state.sqlite", _identity(sources, rules))
    try:
        if not store.get("done", False):
            _run(sources, out, rules, store, workers, progress, commit_every)
        return _report(out, rules, store)
    finally:
        store.close()


def _run(
    sources: Sequence[Source],
    out: Path,
    rules: Rules,
    store: PairStore,
    workers: int,
    progress: Callable[[int], None] | None,
    commit_every: int,
) -> None:
    partial = out / "pairs.jsonl.partial"
    start, written = tuple(store.get("position", (0, 0))), int(store.get("written", 0))
    done = int(store.get("records", 0))
    if not partial.exists() and (out / "pairs.jsonl").exists():
        os.replace(out / "pairs.jsonl", partial)  # killed between the renaming and the last commit
    with partial.open("ab") as output:
        output.truncate(written)  # what was written after the last commit comes again
        output.seek(0, os.SEEK_END)
        position = start
        for record, decoded in _decoded(judged_records(sources, start, _settings(rules), workers), rules, workers):
            line = judge_record(record, decoded, sources[record.source].name, rules, store)
            if line:
                output.write(line)
            position, done = (record.source, record.end), done + 1
            if done % commit_every == 0:
                _commit(store, output, position, done)
                if progress:
                    progress(done)
        _commit(store, output, position, done)
    os.replace(partial, out / "pairs.jsonl")
    store.set("done", True)
    _commit(store, None, position, done)


def _settings(rules: Rules) -> tuple[TextRules, Fields, bool]:
    return rules.text, rules.fields, rules.images


def _commit(store: PairStore, output: Any, position: Any, done: int) -> None:
    """First the output, then the state that counts on it."""
    written = int(store.get("written", 0))
    if output is not None:
        output.flush()
        os.fsync(output.fileno())
        written = output.tell()
    store.set("records", done)
    store.commit(position, written)


def _decoded(records: Iterator[Record], rules: Rules, workers: int) -> Iterator[tuple[Record, Decoded | None]]:
    """Every record in order, with its picture where it has survived the text rules."""
    if not rules.images:
        yield from ((record, None) for record in records)
        return
    waiting: deque[Record] = deque()

    def files() -> Iterator[ImageFile]:
        for record in records:
            waiting.append(record)
            if not record.removed:
                yield ImageFile(record.image, 0, 0)

    spec, limit = PixelSpec(HASH_SIDE), rules.image.max_megapixels
    for decoded in decode_all(files(), spec, workers=workers, max_megapixels=limit):
        while waiting[0].removed:
            yield waiting.popleft(), None
        yield waiting.popleft(), decoded
    while waiting:
        yield waiting.popleft(), None


def _report(out: Path, rules: Rules, store: PairStore) -> dict[str, Any]:
    sources, examples = store.report()
    total: dict[str, int] = {}
    for counts in sources.values():
        for what, count in counts.items():
            total[what] = total.get(what, 0) + count
    report = {"total": total, "sources": sources, "examples": examples, "rules": dataclasses.asdict(rules)}
    with appearing(out / "report.json") as (new,):
        new.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return report


def show(report: dict[str, Any]) -> None:
    """The report as a table on stdout."""
    from rich.console import Console
    from rich.table import Table

    sources = list(report["sources"])
    table = Table("", *sources, *(["all"] if len(sources) > 1 else []), "for example")
    first = ["records", "kept", "kept with zh", "kept with en"]
    rest = sorted(set(report["total"]) - set(first), key=lambda what: (what.startswith("one text"), what))
    for what in [*first, *rest]:
        counts = [report["sources"][source].get(what, 0) for source in sources]
        figures = [f"{count:,}" for count in ([*counts, sum(counts)] if len(sources) > 1 else counts)]
        example = next(iter(report["examples"].get(what, [])), "")
        table.add_row(what, *figures, example[:60].replace("[", "\\["))
    Console().print(table)


def parse_source(given: str) -> Source:
    """NAME=FILE; without a name the file's stem is it.

    Raises:
        UsageError: nothing before or after the sign.
    """
    name, sign, file = given.partition("=")
    if not sign:
        name, file = Path(given).stem, given
    if not name or not file:
        raise UsageError(f"--source {given}: give it as NAME=FILE")
    return Source(name, Path(file), Path(file).parent)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the output")
    parser.add_argument(
        "--source", action="append", required=True, metavar="NAME=FILE", help="JSON lines; may be repeated"
    )
    parser.add_argument("--rules", type=Path, help="TOML with [text], [image], [fields], max_repeats")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one rule")
    parser.add_argument("--no-images", action="store_true", help="judge texts alone; images need not be there")
    parser.add_argument("--score", metavar="ENCODER", help="also write the cosine of every pair kept")
    parser.add_argument("--workers", type=int, default=default_workers(), help="processes")
    args = parser.parse_args(argv)
    from rich.console import Console

    try:
        rules = read_rules(args.rules, args.set, images=not args.no_images)
        if args.score and args.no_images:
            raise UsageError("--score needs the images: leave out --no-images")
        sources = [parse_source(given) for given in args.source]
        if len({source.name for source in sources}) < len(sources):
            raise UsageError("two sources have the same name: give them as NAME=FILE")
        with Console(stderr=True).status("preparing") as status:
            report = prepare(
                sources,
                args.out,
                rules,
                workers=args.workers,
                progress=lambda done: status.update(f"preparing: {done:,} records"),
            )
        show(report)
        if not report["total"].get("kept"):
            raise CorpusError("no pair was kept: the report says why")
        if args.score:
            from train.pairs.score import score

            score(args.out / "pairs.jsonl", args.out / "pairs.scored.jsonl", args.score, workers=args.workers)
    except BrivlSearchError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
