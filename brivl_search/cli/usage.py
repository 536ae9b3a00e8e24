"""Mistakes on the command line, in one line each: the option, the value, and what to give instead."""

from __future__ import annotations

import re
import sys
from typing import Any

_CHOICES = re.compile(r"is not one of (.+?)\.?$")
_KINDS = (
    ("valid integer", "give a whole number"),
    ("valid number", "give a number"),
    ("valid boolean", "give yes or no"),
    ("requires an argument", "give a value"),
)
_BOUND = re.compile(r"(greater|less) than or equal to (-?[\d.]+)|not in the range (.+?)\.?$")


def is_usage(error: BaseException) -> bool:
    """Whether typer says that the command line cannot be understood."""
    return any(kind.__name__ == "ClickException" for kind in type(error).__mro__)


def line(error: Any) -> str:
    """The message of an error of `is_usage`, in our words."""
    context, verb = getattr(error, "ctx", None), ""
    while context is not None and context.parent is not None:  # `models bench` is a verb of two words
        context, verb = context.parent, f" {context.info_name}{verb}"
    return f"{_what(error)} (see brivl-search{verb} --help)"


def _what(error: Any) -> str:
    message = " ".join(str(error.format_message()).split())
    parameter = getattr(error, "param", None)
    name = _name(parameter, error)
    if type(error).__name__ == "MissingParameter":
        return f"{name} is missing: give one"
    if type(error).__name__ == "NoSuchOption":
        near = getattr(error, "possibilities", None)
        return f"there is no option {error.option_name}" + (f": did you mean {' or '.join(near)}?" if near else "")
    if found := re.match(r"No such command '(.*?)'\.?\s*(Did you mean .*)?$", message):
        return f"there is no verb {found[1]}" + (f": {_small(found[2])}" if found[2] else "")
    if found := re.match(r"Got unexpected extra argument\(?s?\)? \((.*)\)$", message):
        return f"too many arguments: {found[1]}: put a text with spaces in quotes"
    if parameter is None and not name:
        return _small(message).rstrip(".")
    given = _given(parameter, name)
    if found := _CHOICES.search(message):
        return f"{name}{given}: use one of {found[1].replace(chr(39), '')}"
    if found := _BOUND.search(message):
        bound = f"{'from' if found[1] == 'greater' else 'up to'} {found[2]}" if found[1] else found[3]
        return f"{name}{given}: give a number {bound}{' on' if found[1] == 'greater' else ''}"
    advice = next((advice for kind, advice in _KINDS if kind in message), None)
    return f"{name}{given}: {advice}" if advice else _small(message).rstrip(".")


def _name(parameter: Any, error: Any) -> str:
    if parameter is not None:
        options = [option for option in parameter.opts if option.startswith("--")]
        return options[0] if options else str(parameter.metavar or parameter.name).upper()
    return str(getattr(error, "option_name", None) or getattr(error, "param_hint", None) or "").strip("'")


def _given(parameter: Any, name: str) -> str:
    """What stands behind the option on the command line."""
    typed = set(getattr(parameter, "opts", [])) | {name}
    for word, value in zip(sys.argv, [*sys.argv[1:], ""], strict=True):
        option, equals, joined = word.partition("=")
        if option in typed:
            shown = joined if equals else value
            return f" {shown}" if shown and not (shown.startswith("--") and not equals) else ""
    return ""


def _small(message: str) -> str:
    return message[:1].lower() + message[1:]
