"""The list that a teacher was asked for, out of whatever it wrote around it."""

from __future__ import annotations

import json
import re
from typing import Any

from slmops.tasks import strict_json

_BULLET = re.compile(r"^\s*(?:[-*•]|\(?\d{1,3}[.):])\s+(?P<text>\S.*?)\s*$")
_BETWEEN = " \t\r\n,"


def items_of(text: str) -> list[Any]:
    """The members of the list in a teacher's text, as JSON values.

    That is its first array that has any: between prose, in a fence or in an object, and where it was cut off the
    members before the cut. Without one, JSON values that stand a line each; without these, numbered or bulleted lines.
    Other lines are prose and no members. What is not the JSON of RFC 8259 is none.
    """
    return _array(text) or _lines(text) or [match["text"] for match in map(_BULLET.match, text.splitlines()) if match]


def _array(text: str) -> list[Any]:
    at = text.find("[")
    while at >= 0:
        if found := _members(text, at + 1):
            return found
        at = text.find("[", at + 1)
    return []


def _members(text: str, at: int) -> list[Any]:
    """The whole values from `at` on, up to the end of their array or the first that is none."""
    found, decoder = [], json.JSONDecoder()
    while True:
        while at < len(text) and text[at] in _BETWEEN:
            at += 1
        try:
            _, end = decoder.raw_decode(text, at)
            found.append(strict_json.loads(text[at:end]))
        except (ValueError, RecursionError):
            return found
        at = end


def _lines(text: str) -> list[Any]:
    found = []
    for line in text.splitlines():
        line = line.strip().removesuffix(",")
        if line[:1] in ('"', "{"):
            try:
                found.append(strict_json.loads(line))
            except ValueError:
                continue
    return found
