"""What opens doors: keys and tokens, passwords, and addresses that hold one."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

from slmops.privacy.spans import Span

_URL = re.compile(r"(?<![A-Za-z0-9])[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s<>\"'`\\]+")
_TELLING = re.compile(
    r"(?:^|[?&;#])[\w.-]*(?:token|key|sig|signature|secret|passw\w*|pwd|auth\w*|code|credential\w*|session\w*|sid|otp|jwt)"
    r"[\w.-]*=[^&;#\s]+",
    re.IGNORECASE,
)


def urls(text: str) -> Iterator[Span]:
    """Addresses with a password, with a parameter whose name speaks of a secret, or with a token in their path."""
    for match in _URL.finditer(text):
        found = match[0].rstrip(".,;:!?")
        while found.endswith((")", "]", "}")) and found.count(found[-1]) > found.count(_OPENING[found[-1]]):
            found = found[:-1].rstrip(".,;:!?")
        if _opens_a_door(found):
            yield Span(match.start(), match.start() + len(found), "url")


_OPENING = {")": "(", "]": "[", "}": "{"}


def _opens_a_door(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        # Brackets that are no address: nobody knows what it holds.
        return True
    if "@" in parts.netloc and ":" in parts.netloc.rpartition("@")[0]:
        return True
    if any(_TELLING.search(part) for part in (parts.query, parts.fragment)):
        return True
    return any(_is_random(segment, 20, 3.5) for segment in parts.path.split("/"))


_KEYS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"sk-[A-Za-z0-9_-]{16,}"
    r"|(?:sk|pk|rk|whsec)_(?:(?:live|test)_)?[A-Za-z0-9]{16,}"
    r"|gh[opsur]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|xox[a-z]-[\w-]{10,}|(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}"
    r"|AIza[\w-]{30,}|ya29\.[\w-]{16,}|hf_[A-Za-z0-9]{16,}|npm_[A-Za-z0-9]{20,}|pypi-[\w-]{20,}"
    r"|SG\.[\w-]{16,}\.[\w-]{16,}|dop_v1_[a-f0-9]{32,}|(?:SK|AC)[0-9a-f]{32}|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"
    r"|eyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)?"
    r")"
)
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_BEARER = re.compile(r"\b(?:bearer|basic)\s+([A-Za-z0-9._~+/=-]{12,})", re.IGNORECASE)
_NAMED = re.compile(
    r"(?<![A-Za-z])(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|pin|kennwort|passwort|mot de passe|contraseña|"
    r"(?:api|access|auth|secret|private|license)[_ -]?(?:key|token))[\"']?\s{0,3}"
    r"(?P<sign>:=|=>|:|=|\bis\b|\bist\b|\best\b|\bes\b)\s{0,3}[\"']?(?P<value>[^\s\"'<>,;]{4,})",
    re.IGNORECASE,
)
_WORD = re.compile(r"[A-Za-z0-9+/_=-]{32,}")


def secrets(text: str) -> Iterator[Span]:
    """Keys of known makers, private keys, what is called a password or a token, and long words of random letters."""
    for pattern in (_KEYS, _PEM):
        for match in pattern.finditer(text):
            yield Span(*match.span(), "secret")
    for match in _BEARER.finditer(text):
        if _has_digit(match[1]):
            yield Span(*match.span(1), "secret")
    for match in _NAMED.finditer(text):
        value = match["value"].rstrip(".?)]}")
        if len(value) >= 4 and _is_no_word(value, strict=match["sign"].isalpha()):
            yield Span(match.start("value"), match.start("value") + len(value), "secret")
    for match in _WORD.finditer(text):
        if _is_random(match[0], 32, 4.0):
            yield Span(*match.span(), "secret")


def _is_no_word(value: str, *, strict: bool) -> bool:
    """A value that nobody would write in prose; behind `is` it needs a digit: "my password is Wrong"."""
    if strict:
        return _has_digit(value)
    inner = value[1:]
    return _has_digit(value) or not value.isalpha() or (inner != inner.lower() and inner != inner.upper())


def _is_random(word: str, shortest: int, bits: float) -> bool:
    """Letters of both cases and digits, in no order: at least so many bits of entropy a character."""
    if len(word) < shortest or not _has_digit(word) or word.lower() == word or word.upper() == word:
        return False
    counts = Counter(word).values()
    return -sum(n / len(word) * math.log2(n / len(word)) for n in counts) >= bits


def _has_digit(text: str) -> bool:
    return any(character.isdigit() for character in text)
