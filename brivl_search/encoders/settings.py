"""Settings at the end of an encoder's name: NAME?dim=N&query_prompt=TEXT&document_prompt=TEXT&walk=long&patches=N.

They are part of the name because they change the vectors, and an index keeps the name. In a value, %, & and ? may be
written as %25, %26 and %3F.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from brivl_search.errors import UsageError

_SETTINGS = re.compile(r"(.*?)\?([A-Za-z_]\w*=.*)", re.DOTALL)
_PREFIX = re.compile(r"\A(hf|open_clip):")
_KNOWN = ("dim", "query_prompt", "document_prompt", "walk", "patches")
_PROMPTS = ("query_prompt", "document_prompt")
WALKS = ("short", "long")
MOST_PATCHES = 4096


@dataclass(frozen=True)
class Settings:
    """What a name says beside the model.

    Attributes:
        dim: how many dimensions of the vectors are kept; None: all.
        query_prompt: what stands before a text that is searched with: a prompt of the model by name, or a text; "":
            nothing; None: what the model says.
        document_prompt: the same for captions and pictures.
        walk: how FG-CLIP 2 reads texts, one of WALKS; None: each by its length.
        patches: most patches of a picture, for models that take it as patches (NaFlex); None: what the model says.
    """

    dim: int | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    walk: str | None = None
    patches: int | None = None

    @property
    def suffix(self) -> str:
        """As it stands in a name: "" or ?key=value&..., the same for the same settings."""
        given = [(key, getattr(self, key)) for key in _KNOWN]
        parts = [f"{key}={_quoted(str(value))}" for key, value in given if value is not None]
        return f"?{'&'.join(parts)}" if parts else ""

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts that are given, by key."""
        given = {key: getattr(self, key) for key in _PROMPTS}
        return {key: value for key, value in given.items() if value is not None}


NONE = Settings()


def split(name: str) -> tuple[str, Settings]:
    """A name → the name of the model, and the settings after it.

    Raises:
        UsageError: there is no such setting, or its value is none.
    """
    found = _SETTINGS.fullmatch(name)
    # A folder may be called like that. What follows the last colon is none: a prompt may end in one, as "query:" does.
    if found is None or os.path.isdir(os.path.expanduser(_PREFIX.sub("", name))):
        return name, NONE
    values: dict[str, str] = {}
    for part in found[2].split("&"):
        key, is_given, value = part.partition("=")
        if key not in _KNOWN or not is_given:
            raise UsageError(
                f"{name}: no setting {key!r}: known are {', '.join(_KNOWN)}; write & inside a value as %26"
            )
        if key in values:
            raise UsageError(f"{name}: {key} is there twice: leave one out")
        try:
            values[key] = unquote(value, errors="strict")
        except UnicodeDecodeError:
            raise UsageError(f"{name}: {key} is not UTF-8: write % itself as %25") from None
    walk, patches = values.get("walk"), _number(name, "patches", values)
    if walk not in (None, *WALKS):
        raise UsageError(f"{name}: walk={walk}: give {' or '.join(WALKS)}, or leave it out")
    if patches is not None and patches > MOST_PATCHES:
        raise UsageError(f"{name}: patches={patches}: give at most {MOST_PATCHES}")
    dim, query, document = _number(name, "dim", values), values.get("query_prompt"), values.get("document_prompt")
    return found[1], Settings(dim, query, document, walk, patches)


def _number(name: str, key: str, values: Mapping[str, str]) -> int | None:
    value = values.get(key)
    if value is not None and not re.fullmatch(r"0*[1-9][0-9]{0,8}", value):
        raise UsageError(f"{name}: {key}={value}: give a whole number from 1 on")
    return None if value is None else int(value)


def no_prompts(name: str, settings: Settings) -> None:
    """For models without prompts.

    Raises:
        UsageError: `settings` has some.
    """
    if settings.prompts:
        raise UsageError(
            f"{name} has no prompts: leave out {' and '.join(settings.prompts)} (models by sentence-transformers have)"
        )


def no_walks(name: str, settings: Settings) -> None:
    """For models that read all texts in one way.

    Raises:
        UsageError: `settings` has a walk.
    """
    if settings.walk is not None:
        raise UsageError(f"{name} reads all texts in one way: leave out walk (FG-CLIP 2 has a short and a long one)")


def no_patches(name: str, settings: Settings) -> None:
    """For models that take squares of one size.

    Raises:
        UsageError: `settings` has a number of patches.
    """
    if settings.patches is not None:
        raise UsageError(f"{name} takes pictures of one size: leave out patches (NaFlex models take so many)")


def only_dim(name: str, settings: Settings) -> None:
    """For models that know no setting but dim. Raises UsageError as the functions above."""
    no_prompts(name, settings)
    no_walks(name, settings)
    no_patches(name, settings)


def _quoted(value: str) -> str:
    return value.replace("%", "%25").replace("&", "%26").replace("?", "%3F")
