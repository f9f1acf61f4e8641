"""How people and machines are reached: e-mail addresses, phone numbers, IP addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence

from slmops.privacy.spans import Detector, Span

_LOCAL = frozenset(".!#$%&'*+/=?^_`{|}~-")
"""What a local part may hold beside letters and digits (RFC 5322, section 3.2.3)."""

_DOMAIN = re.compile(r"@(?:[^\W_](?:[\w-]{0,62}[^\W_])?\.)+[^\W\d_]{2,63}")


def emails(text: str) -> Iterator[Span]:
    """Found from their `@`, so that a long text without one costs nothing."""
    for match in _DOMAIN.finditer(text):
        start = match.start()
        while start and (text[start - 1].isalnum() or text[start - 1] in _LOCAL):
            start -= 1
        while start < match.start() and not (text[start].isalnum() or text[start] == "_"):
            start += 1
        if start < match.start():
            yield Span(start, match.end(), "email")


_PHONE_WORDS = re.compile(
    r"(?:\b(?:tel|telefon\w*|telephone|phone|fon|fax|call\w*|mobile?|mobil\w*|cell\w*|handy\w*|whatsapp|sms|text me|"
    r"ring|dial\w*|landline|anruf\w*|rückruf\w*|festnetz\w*|erreichbar|tél|téléphone|appel\w*|portable|joignable|"
    r"teléfono|móvil|reach me|contact|(?:my|our|mein\w*|unser\w*|mon|notre|mi) (?:number|nummer|numéro|número))\b)"
    r"[^\d\n]{0,24}$",
    re.IGNORECASE,
)
_NUMBER_WORDS = re.compile(
    r"(?:\b(?:order|invoice|ticket|reference|ref|case|tracking|serial|article|item|sku|isbn|batch|lot|parcel|"
    r"bestell\w*|auftrag\w*|rechnung\w*|sendung\w*|artikel\w*|kunden\w*|commande|facture|pedido|factura|version|part)\b"
    r"|#|№)[ \t]*(?:nr|no|num|number|nummer|id|code|numéro|número)?[ \t.:#№-]*$",
    re.IGNORECASE,
)
_DATE = re.compile(r"(?:[12]\d{3}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./ ]\d{1,2}[-./ ]\d{4})(?!\d)")
_ENOUGH_DIGITS = re.compile(r"(?:\d\D{0,5}){7}")
_DOTTED = re.compile(r"(?!0\d)(?:\d{1,3}(?:\.\d{1,5}){3,}|\d+[.,]\d+)")
"""Versions, addresses of machines, amounts; none of them begins as `06.12.34.56.78` does."""

_NATIONAL_DIGITS = range(9, 14)
_BEFORE = 48
"""Characters in front of a number that say what it is."""


def phones(regions: Sequence[str]) -> Detector:
    """Numbers that libphonenumber holds valid: with `+` anywhere, else as people of `regions` write them.

    A national number must look like one, unless a word such as `phone` stands before it: its groups are parted, or it
    is a mobile one that begins with the region's 0. Of other digits in one piece that begin with 0, two in three are
    valid somewhere: they may as well be an order's. What follows `order`, `invoice` and the like is none, and neither
    is a date.
    """

    def find(text: str) -> Iterator[Span]:
        if not _ENOUGH_DIGITS.search(text):
            return
        from phonenumbers import Leniency, PhoneNumberMatcher, PhoneNumberType, number_type

        # Without a region the matcher knows international numbers alone, and those are the same for every region.
        for region in regions or (None,):
            for match in PhoneNumberMatcher(text, region, leniency=Leniency.VALID, max_tries=len(text) + 1):
                raw, before = match.raw_string, text[max(0, match.start - _BEFORE) : match.start]
                mobile = number_type(match.number) in (PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE_OR_MOBILE)
                national = _is_national(raw, before, text[match.end :], mobile=mobile)
                if national or raw.lstrip("(").startswith(("+", "00")):
                    yield Span(match.start, match.end, "phone")

    return find


def _is_national(raw: str, before: str, behind: str, *, mobile: bool) -> bool:
    if _NUMBER_WORDS.search(before) or _DATE.match(raw) or _DOTTED.fullmatch(raw):
        return False
    if _PHONE_WORDS.search(before):
        return True
    if before[-1:].isalnum() or before[-1:] in {"-", "_", "/", "."} or behind[:1] in {"-", "_", "/"}:
        return False
    digits = re.sub(r"\D", "", raw)
    written_so = len(re.findall(r"\d+", raw)) > 1 or (mobile and raw.startswith("0"))
    return written_so and len(digits) in _NATIONAL_DIGITS


_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{1,44}")
_VERSION = re.compile(r"(?:\b(?:v|ver|version|release|build|firmware|driver|update|patch)\b[ .:=]*|\w/|[vV])$", re.I)


def ips(text: str) -> Iterator[Span]:
    """IPv4 and IPv6 addresses, but a machine's own; four numbers after `version`, `v` or `Name/` are none."""
    for match in _IPV4.finditer(text):
        if _names_a_machine(match[0]) and not _VERSION.search(text[max(0, match.start() - 24) : match.start()]):
            yield Span(*match.span(), "ip")
    for match in _IPV6.finditer(text):
        found = match[0] if _names_a_machine(match[0]) else match[0].rstrip(".:")
        if found.count(":") > 1 and len(found) > 4 and _names_a_machine(found):
            yield Span(match.start(), match.start() + len(found), "ip")


def _names_a_machine(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)
