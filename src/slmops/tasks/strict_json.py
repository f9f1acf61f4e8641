"""JSON read by the letter of RFC 8259, where Python's own reader is lenient."""

from __future__ import annotations

import json
import math
from typing import Any


def loads(text: str) -> Any:
    """The value that `text` stands for.

    Raises:
        ValueError: not JSON, an object with a key given twice, a number beyond a float, or half a surrogate pair;
            the message says which.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("not JSON: nested too deeply") from None
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair stands for no character") from None
    return value


def members(text: str) -> dict[str, tuple[int, int]]:
    """Where each member of the object `text` stands: from the first character of its key to behind its value.

    Raises:
        ValueError: `loads` would not take it, or it is no object.
    """
    if not isinstance(loads(text), dict):
        raise ValueError("no JSON object")
    found, at, value = {}, text.index("{") + 1, json.JSONDecoder()
    while text[at := _next(text, at)] != "}":
        name, end = value.raw_decode(text, at)
        _, end = value.raw_decode(text, _next(text, _next(text, end) + 1))
        found[name] = (at, end)
        at = _next(text, end)
        at += text[at] == ","
    return found


def _next(text: str, at: int) -> int:
    """The next character that is no white space."""
    while text[at] in " \t\n\r":
        at += 1
    return at


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} is given twice")
    return value


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large a number")
    return value
