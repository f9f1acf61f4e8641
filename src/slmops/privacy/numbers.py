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
_CARD = re.compile(
    r"4\d{12}(?:\d{3}){0,2}"
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"
    r"|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11,16}|35\d{14,17}|(?:5[06-8]|6\d)\d{11,17}"
)
"""How numbers of Visa, Mastercard, American Express, Diners, JCB, Maestro, Discover and UnionPay begin, and how long
they are."""


_LONGEST_CARD = 19


def cards(text: str) -> Iterator[Span]:
    """Thirteen to nineteen digits, alone or in groups, as a brand gives them out, that pass Luhn (ISO/IEC 7812)."""
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

    digits, found = "", None
    for last in range(first, len(groups)):
        digits += text[slice(*groups[last])]
        if len(digits) > _LONGEST_CARD:
            break
        if _CARD.fullmatch(digits) and luhn.is_valid(digits):
            found = last
    return found


def _bare(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "", text).upper()
