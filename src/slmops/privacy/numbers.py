"""Numbers that prove themselves by a checksum: bank accounts and payment cards."""

from __future__ import annotations

import re
from collections.abc import Iterator

from slmops.privacy.spans import Span

_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ \u00a0\u202f-]?[A-Za-z0-9]){11,30}")
_SHORTEST_IBAN = 15


def ibans(text: str) -> Iterator[Span]:
    """By checksum and by the form of their country (ISO 13616); what follows one may look like a part of it."""
    from stdnum import iban

    for match in _IBAN.finditer(text):
        ends = [i + 1 for i in range(match.start(), match.end()) if text[i].isalnum()][_SHORTEST_IBAN - 1 :]
        for end in reversed(ends):
            follows = text[end : end + 1]
            if not follows.isalnum() and iban.is_valid(_bare(text[match.start() : end]), check_country=False):
                yield Span(match.start(), end, "iban")
                break


_DIGITS = re.compile(r"(?<![\d])\d(?:[ \u00a0\u202f-]?\d){11,}")
_GROUP = re.compile(r"\d+")
_CARD_LENGTHS = range(13, 20)
_FIRST_DIGITS = frozenset("23456")


def cards(text: str) -> Iterator[Span]:
    """Thirteen to nineteen digits, alone or in groups, that begin as cards do and pass Luhn (ISO/IEC 7812)."""
    for run in _DIGITS.finditer(text):
        groups = [match.span() for match in _GROUP.finditer(text, *run.span())]
        first = 0
        while first < len(groups):
            last = _card_from(text, groups, first)
            if last is not None:
                yield Span(groups[first][0], groups[last][1], "card")
            first = first + 1 if last is None else last + 1


def _card_from(text: str, groups: list[tuple[int, int]], first: int) -> int | None:
    """The last group of the longest card that begins with the group `first`."""
    from stdnum import luhn

    if text[groups[first][0]] not in _FIRST_DIGITS:
        return None
    for last in range(len(groups) - 1, first - 1, -1):
        digits = "".join(text[start:end] for start, end in groups[first : last + 1])
        if len(digits) in _CARD_LENGTHS and luhn.is_valid(digits):
            return last
    return None


def _bare(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "", text).upper()
