"""Pickles of plain values, read without pickle: nothing in one can name, import or call anything.

A pickle is a program for a stack machine. This one knows the opcodes that build tuples, lists, strings, bytes, numbers,
booleans and None, and refuses all others: those that import (GLOBAL, STACK_GLOBAL, INST, EXT*), call (REDUCE, BUILD,
NEWOBJ, OBJ) or load from elsewhere (PERSID). CPython's own unpickler with `find_class` overridden would still reserve
gigabytes for a memo index that a few bytes name; here the memo is a dictionary, and sizes are bounded by the input.
"""

from __future__ import annotations

import pickletools
from typing import Any

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {
    *_CONSTANTS, "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
_FIXED_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class UnsafePickleError(ValueError):
    """The pickle holds more than plain values, or is damaged."""


def loads(data: bytes, *, max_bytes: int = 1 << 20) -> Any:
    """The value of a pickle of any protocol: tuples, lists, str, bytes, int, float, bool, None.

    Raises:
        UnsafePickleError: anything else is in it, it is damaged, or longer than `max_bytes`.
    """
    if len(data) > max_bytes:
        raise UnsafePickleError(f"{len(data):,} bytes, the limit is {max_bytes:,}")
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for opcode, argument, _ in pickletools.genops(data):
            name = opcode.name
            if name in _VALUES:
                stack.append(_CONSTANTS.get(name, argument))
            elif name in _FIXED_TUPLES:
                count = _FIXED_TUPLES[name]
                stack[len(stack) - count :] = [tuple(_popped(stack, count))]
            elif name == "MARK":
                stack.append(_MARK)
            elif name in ("TUPLE", "LIST"):
                items = _since_mark(stack)
                stack.append(tuple(items) if name == "TUPLE" else items)
            elif name == "EMPTY_LIST":
                stack.append([])
            elif name == "APPEND":
                value = stack.pop()
                _list(stack).append(value)
            elif name == "APPENDS":
                items = _since_mark(stack)
                _list(stack).extend(items)
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
                memo[int(argument or 0)] = stack[-1]
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                stack.append(memo[int(argument or 0)])
            elif name == "STOP":
                break
            elif name not in ("PROTO", "FRAME"):
                raise UnsafePickleError(f"the opcode {name} is not allowed")
    except UnsafePickleError:
        raise
    except (ValueError, LookupError, TypeError, OverflowError, MemoryError) as error:
        raise UnsafePickleError(f"damaged ({error})"[:200]) from error
    if len(stack) != 1 or stack[0] is _MARK:
        raise UnsafePickleError("damaged (no single value)")
    return stack[0]


def _popped(stack: list[Any], count: int) -> list[Any]:
    items = stack[len(stack) - count :] if count else []
    if len(items) != count or any(item is _MARK for item in items):
        raise UnsafePickleError("damaged (a tuple of too few values)")
    return items


def _since_mark(stack: list[Any]) -> list[Any]:
    items: list[Any] = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    items.reverse()
    return items


def _list(stack: list[Any]) -> list[Any]:
    if not isinstance(stack[-1], list):
        raise UnsafePickleError("damaged (appends to what is no list)")
    found: list[Any] = stack[-1]
    return found
