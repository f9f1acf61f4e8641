"""The names that stand for what was taken out, and reading them again in what a model makes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_MOST_FAILED = 100

Name = tuple[str, int]
"""Kind and number: `("email", 1)`."""

_WRITTEN = re.compile(r"\[([A-Z][A-Z0-9_]*)_(\d{1,9})\]")
"""As we write them."""

_MEANT = re.compile(
    r"\\?[\[({<]\s{0,3}(?P<kind>[A-Za-z][A-Za-z0-9_\\]*?)(?P<part>\\?[ _-])(?P<number>\d{1,9})\s{0,3}\\?[\])}>]"
    r"|(?<![A-Za-z0-9_])(?P<bare>[A-Z][A-Z0-9_\\]*?)\\?_(?P<bare_number>\d{1,9})(?![A-Za-z0-9_])"
)
"""As models may write them: other brackets or none, small letters, a space, Markdown's backslashes."""


def written(name: Name) -> str:
    """`[EMAIL_1]`."""
    kind, number = name
    return f"[{kind.upper()}_{number}]"


def meant(text: str) -> Iterator[Name]:
    """Every name that a text may be read to hold."""
    return (_name(match) for match in _MEANT.finditer(text))


def counted(text: str) -> set[Name]:
    """The placeholders in a text that is as we wrote it; one that its author wrote counts as well."""
    return {(kind.lower(), int(number)) for kind, number in _WRITTEN.findall(text)}


class Restored(NamedTuple):
    """An answer with the values in their places, and the placeholders in it that stand for nothing."""

    text: str
    invented: tuple[str, ...]


def restore(
    text: str, values: Mapping[Name, str], kinds: frozenset[str], own: frozenset[Name], *, escape: bool = True
) -> Restored:
    """Put values back where their placeholders stand; in JSON they are escaped as it wants them.

    Placeholders as we write them are read first, and what a model made of them in between. A bracket around another
    one, or a word such as `(phone 2)`, is left alone unless that name was given away.

    Args:
        values: by the names that were given away.
        kinds: that a placeholder may be of.
        own: names that stood in the text that was asked; they stand for themselves.
        escape: as JSON wants it; a text that was redacted as it was, JSON or not, comes back without.
    """
    inside = _json_places(text) if values and escape else []
    invented: list[str] = []
    made: list[str] = []

    def value(name: Name, at: int) -> str:
        escaped = any(start <= at < end for start, end in inside)
        return json.dumps(values[name], ensure_ascii=False)[1:-1] if escaped else values[name]

    def between(start: int, end: int) -> None:
        part, at = text[start:end], 0
        for match in _MEANT.finditer(part):
            name = _name(match)
            if name in values:
                made.extend((part[at : match.start()], value(name, start + match.start())))
                at = match.end()
            elif name[0] in kinds and name not in own and "_" in (match["part"] or "_"):
                invented.append(match[0])
        made.append(part[at:])

    at = 0
    for match in _WRITTEN.finditer(text):
        name = match[1].lower(), int(match[2])
        if name in values and written(name) == match[0]:
            between(at, match.start())
            made.append(value(name, match.start()))
            at = match.end()
    between(at, len(text))
    return Restored("".join(made), tuple(dict.fromkeys(invented)))


def ends_within(text: str, names: Mapping[Name, str]) -> bool:
    """Whether a text that was cut off ends in the middle of a placeholder."""
    return any(text.endswith(written(name)[:length]) for name in names for length in range(2, len(written(name))))


def _name(match: re.Match[str]) -> Name:
    kind, number = match["kind"] or match["bare"], match["number"] or match["bare_number"]
    return kind.replace("\\", "").lower(), int(number)


def _json_places(text: str) -> list[tuple[int, int]]:
    """Where the outermost JSON objects and lists of a text stand, whatever stands between them.

    The search ends at a hundred brackets that begin none: each of them may cost a reading of all that follows.
    """
    decoder, places, at, failed = json.JSONDecoder(), [], 0, 0
    for match in re.finditer(r"[{\[]", text):
        if match.start() < at:
            continue
        try:
            _, at = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            failed += 1
            if failed == _MOST_FAILED:
                break
            continue
        places.append((match.start(), at))
    return places
