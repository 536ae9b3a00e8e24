"""What sentence-transformers puts before a text: the prompts of a model, and which of them a query and a caption get.

config_sentence_transformers.json has `prompts` by name, and perhaps a `default_prompt_name`. As `encode_query` and
`encode_document` of sentence-transformers do it, a query gets the prompt "query", a document the first that there is
of "document", "passage" and "corpus". Where there is neither kind, both get the default prompt, as `encode` does it.

A picture gets the document's prompt, whether it is stored or searched with: one picture has one vector. Models that
read chats (Qwen3-VL-Embedding) take a prompt as the system's message, for pictures too. Others read pictures without.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brivl_search.encoders.settings import Settings
from brivl_search.errors import EncoderError, UsageError

CONFIG = "config_sentence_transformers.json"
_QUERY, _DOCUMENT = ("query",), ("document", "passage", "corpus")
_NAME = re.compile(r"[\w-]+", re.ASCII)  # Chinese has no spaces between its words: 查找相关的图片 is no name
# For models that say nothing: the instructions of the published script (QwenLM/Qwen3-VL-Embedding, README and
# `Qwen3VLEmbedder`), by `model_type`.
_PUBLISHED = {
    "qwen3_vl": {
        "query": "Retrieve images or text relevant to the user's query.",
        "document": "Represent the user's input.",
    }
}


@dataclass(frozen=True)
class Prompts:
    """What stands before a query and before a document; "" where nothing does.

    Attributes:
        query: before a text that is searched with.
        document: before a caption; for pictures see the top of this module.
        plain: before any text if nobody asks for a side: the default prompt.
    """

    query: str = ""
    document: str = ""
    plain: str = ""

    @property
    def changed(self) -> bool:
        """Whether a side has vectors that `encode` does not give."""
        return not self.query == self.document == self.plain


def read_prompts(name: str, folder: Path, kind: Any, settings: Settings) -> Prompts:
    """The prompts of the model in `folder`, or those that its name asks for.

    Args:
        name: of the model, for messages.
        folder: with config_sentence_transformers.json, if there is one.
        kind: `model_type` of the model's config.
        settings: what the encoder's name says.

    Raises:
        UsageError: a prompt is asked for by a name that the model does not have.
        EncoderError: the config file is damaged.
    """
    known, default = _named(folder)
    plain = known.get(default, "") if default is not None else ""
    if not any(known.values()) and kind in _PUBLISHED:
        known = {**known, **_PUBLISHED[kind]}
    sides = {}
    for key, names, given in (
        ("query_prompt", _QUERY, settings.query_prompt),
        ("document_prompt", _DOCUMENT, settings.document_prompt),
    ):
        if given is not None:
            sides[key] = _asked(name, key, given, known)
        elif any(one in known for one in (*_QUERY, *_DOCUMENT)):
            sides[key] = next((known[one] for one in names if one in known), "")
        else:
            sides[key] = plain
    return Prompts(sides["query_prompt"], sides["document_prompt"], plain)


def _named(folder: Path) -> tuple[dict[str, str], str | None]:
    """The model's prompts by name, and the name of its default prompt."""
    path = folder / CONFIG
    if not path.is_file():
        return {}, None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        given, default = values.get("prompts") or {}, values.get("default_prompt_name")
        known = {str(key): str(value or "") for key, value in given.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise EncoderError(f"{path} cannot be read: {error}") from None
    if default is not None and default not in known:
        raise EncoderError(f"{path}: its default_prompt_name {default!r} is none of its prompts")
    return known, default


def _asked(name: str, key: str, given: str, known: Mapping[str, str]) -> str:
    """A prompt by name, or the text itself. A single word is meant as a name."""
    if given in known:
        return known[given]
    if given and _NAME.fullmatch(given):
        there = ", ".join(known) if known else "it has none"
        raise UsageError(
            f"{name} has no prompt {given!r} for {key} ({there}): give {'one of these, ' if known else ''}a text of "
            "several words, or nothing after ="
        )
    return given
