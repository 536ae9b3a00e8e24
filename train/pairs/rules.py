"""Which pairs stay: all thresholds, how a TOML file and `--set` change them, and what they say of one record."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brivl_search.corpus.decode_pool import Decoded
from brivl_search.errors import UsageError
from train.pairs.images import ImageRules, empty, extreme_aspect, perceptual_hash, to_grey, too_small
from train.pairs.sources import Fields, Record
from train.pairs.store import PairStore
from train.pairs.texts import TextJudge, TextRules


@dataclass(frozen=True)
class Rules:
    """All thresholds. `max_repeats`: how often a text may come; more is boilerplate that no pattern knows."""

    text: TextRules = field(default_factory=TextRules)
    image: ImageRules = field(default_factory=ImageRules)
    fields: Fields = field(default_factory=Fields)
    max_repeats: int = 20
    images: bool = True


def read_rules(file: Path | None, changes: Sequence[str], *, images: bool) -> Rules:
    """Rules from a TOML file with the tables `[text]`, `[image]` and `[fields]`, and `--set text.min_zh=6`.

    Raises:
        UsageError: no such file, a key that is none, or a value that cannot be.
    """
    try:
        table: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8")) if file else {}
        for change in changes:
            name, _, written = change.partition("=")
            section, _, key = name.rpartition(".")
            (table.setdefault(section, {}) if section else table)[key] = tomllib.loads(f"v = {written}")["v"]
    except OSError as error:
        raise UsageError(f"--rules {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, AttributeError) as error:
        raise UsageError(f"the rules are no TOML: {error}") from None
    parts: dict[str, Any] = {"images": images}
    for name, kind in (("text", TextRules), ("image", ImageRules), ("fields", Fields)):
        values = table.pop(name, {})
        known = {each.name: each.default for each in dataclasses.fields(kind)}
        for key, given in values.items():
            if key not in known:
                raise UsageError(f"there is no rule {name}.{key}: the keys of [{name}] are {', '.join(known)}")
            values[key] = one = tuple(given) if isinstance(given, list) else given
            wanted = type(known[key])
            numbers = (int, float) if wanted is float else wanted
            if not isinstance(one, numbers) or isinstance(one, bool) != (wanted is bool):
                raise UsageError(f"{name}.{key} = {one!r}: it must be like {known[key]!r}")
        try:
            parts[name] = kind(**values)
        except ValueError as error:
            raise UsageError(str(error)) from None
    if "max_repeats" in table:
        parts["max_repeats"] = int(table.pop("max_repeats"))
    if table:
        raise UsageError(f"the rules have no {', '.join(table)}: [text], [image], [fields] and max_repeats")
    try:
        TextJudge(parts["text"])
    except ValueError as error:
        raise UsageError(str(error)) from None
    return Rules(**parts)


def judge_record(record: Record, decoded: Decoded | None, name: str, rules: Rules, store: PairStore) -> bytes:
    """The output line of a record, or b"" after counting what removed it."""
    store.count(name, "records")
    removed, example = record.removed, record.example
    texts: list[tuple[str, str]] = []
    if not removed and record.image and not store.is_new_picture(record.image):
        removed, example = "same image again", record.image
    code: int | None = None
    if not removed and decoded is not None:
        removed, code = judge_image(decoded, rules.image, store)
        example = record.image
    if not removed:
        for language, text in record.texts:
            if store.times_seen(text) < rules.max_repeats:
                texts.append((language, text))
            else:
                store.count(name, "one text: repeated", text[:120])
        if not texts:
            removed, example = "text: repeated", record.texts[0][1][:120]
    if removed:
        store.count(name, removed, example)
        return b""
    if code is not None:
        store.add_picture(code)
    for rule, text in record.dropped:
        store.count(name, f"one text: {rule}", text)
    store.count(name, "kept")
    row: dict[str, Any] = {"image": record.image}
    for language in ("zh", "en"):
        if found := [text for kind, text in texts if kind == language]:
            row[language] = found
            store.count(name, f"kept with {language}")
    row["source"] = name
    if record.url:
        row["url"] = record.url
    if decoded is not None:
        row |= {"width": decoded.width, "height": decoded.height}
    return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "surrogateescape")


def judge_image(decoded: Decoded, rules: ImageRules, store: PairStore) -> tuple[str, int | None]:
    """(rule that removes a picture or "", its hash if it was needed)."""
    if decoded.reason:
        return f"image: {decoded.reason}", None
    if too_small(decoded.width, decoded.height, rules):
        return "image: too small", None
    if extreme_aspect(decoded.width, decoded.height, rules):
        return "image: extreme aspect ratio", None
    assert decoded.pixels is not None
    grey = to_grey(decoded.pixels)
    if empty(grey, rules):
        return "image: empty", None
    if rules.distance < 0:
        return "", None
    code = perceptual_hash(grey)
    return ("image: near-duplicate" if store.near_duplicate(code, rules.distance) else ""), code
