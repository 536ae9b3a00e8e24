"""Settings at the end of an encoder's name: NAME?dim=N&query_prompt=TEXT&document_prompt=TEXT.

They are part of the name because they change the vectors, and an index keeps the name. In a value, %, & and ? may be
written as %25, %26 and %3F.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import unquote

from brivl_search.errors import UsageError

_SETTINGS = re.compile(r"(.*?)\?([A-Za-z_]\w*=.*)", re.DOTALL)
_PREFIX = re.compile(r"\A(hf|open_clip):")
_KNOWN = ("dim", "query_prompt", "document_prompt")


@dataclass(frozen=True)
class Settings:
    """What a name says beside the model.

    Attributes:
        dim: how many dimensions of the vectors are kept; None: all.
        query_prompt: what stands before a text that is searched with: a prompt of the model by name, or a text; "":
            nothing; None: what the model says.
        document_prompt: the same for captions and pictures.
    """

    dim: int | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None

    @property
    def suffix(self) -> str:
        """As it stands in a name: "" or ?key=value&..., the same for the same settings."""
        given = [(key, getattr(self, key)) for key in _KNOWN]
        parts = [f"{key}={_quoted(str(value))}" for key, value in given if value is not None]
        return f"?{'&'.join(parts)}" if parts else ""

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts that are given, by key."""
        given = {key: getattr(self, key) for key in _KNOWN[1:]}
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
    dim = values.pop("dim", None)
    if dim is not None and not re.fullmatch(r"0*[1-9][0-9]{0,8}", dim):
        raise UsageError(f"{name}: dim={dim}: give a whole number from 1 on")
    number = None if dim is None else int(dim)
    return found[1], Settings(number, values.get("query_prompt"), values.get("document_prompt"))


def no_prompts(name: str, settings: Settings) -> None:
    """For models without prompts.

    Raises:
        UsageError: `settings` has some.
    """
    if settings.prompts:
        raise UsageError(
            f"{name} has no prompts: leave out {' and '.join(settings.prompts)} (models by sentence-transformers have)"
        )


def _quoted(value: str) -> str:
    return value.replace("%", "%25").replace("&", "%26").replace("?", "%3F")
