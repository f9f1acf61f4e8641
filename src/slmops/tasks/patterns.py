"""Rules that find a field's value in a text, learned from examples and kept only where they are right.

A rule is a regular expression with the value as its group. Candidates come from the examples: every known value, and
every shape of a value (`BL-48213` is `BL-` and five digits) with up to two words before it or one behind it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Finder = Callable[[str], Any | None]
"""The value that a text holds, or None."""

MIN_PRECISION = 0.8
_MIN_SUPPORT = 2
_MAX_CANDIDATES = 200
_MAX_ROWS = 2000

_TOKEN = re.compile(r"[^\W\d_]+|\d+|\s+|.", re.DOTALL)
_WORD = re.compile(r"\w+")
_LETTER, _CURRENCY = r"[^\W\d_]", "[$€£¥₹]"
_START, _END = r"(?<!\w)(?<!\w[-./,])", r"(?!\w)(?![-./,]\d)"


@dataclass(frozen=True)
class _Rule:
    pattern: re.Pattern[str]
    precision: float


def learn_patterns(texts: Sequence[str], values: Sequence[Any], convert: Callable[[str], Any]) -> Finder:
    """Known values and shapes of an open field.

    Args:
        texts: the examples.
        values: what each holds, None for nothing.
        convert: the value that a piece of text stands for.

    Returns:
        A finder that takes the match of the most precise rule; the longest of equally precise ones.
    """
    examples = list(zip(texts, values, strict=True))[:_MAX_ROWS]
    shapes = Counter(shape for text, value in examples for shape in set(_candidates(text, value, convert)))
    # Sorted by the shape itself too: sets have another order in every process.
    frequent = sorted((shape for shape in shapes if shapes[shape] >= _MIN_SUPPORT), key=lambda s: (-shapes[s], s))
    rules = [rule for shape in frequent[:_MAX_CANDIDATES] if (rule := _judged(re.compile(shape), examples, convert))]
    if known := _known_values(examples, convert):
        rules.append(known)

    def find(text: str) -> Any | None:
        matches = [(rule.precision, len(match[1]), match[1]) for rule in rules if (match := rule.pattern.search(text))]
        return convert(max(matches)[2]) if matches else None

    return find


def learn_words(texts: Sequence[str], values: Sequence[Any]) -> Finder:
    """Words and pairs of words that tell the value of a field with a closed list of values."""
    seen: Counter[str] = Counter()
    told: defaultdict[str, Counter[Any]] = defaultdict(Counter)
    for text, value in zip(texts, values, strict=True):
        for word in _words(text):
            seen[word] += 1
            told[word][value] += 1
    telling: dict[str, tuple[float, Any]] = {}
    for word, count in seen.items():
        value, hits = told[word].most_common(1)[0]
        if value is not None and hits >= _MIN_SUPPORT and hits / count >= MIN_PRECISION:
            telling[word] = (_smoothed(hits, count), value)

    def find(text: str) -> Any | None:
        found = [telling[word] for word in sorted(_words(text)) if word in telling]
        return max(found, key=lambda rated: rated[0])[1] if found else None

    return find


def _words(text: str) -> set[str]:
    words = [word.casefold() for word in _WORD.findall(text)]
    return {*words, *(f"{first} {second}" for first, second in pairwise(words))}


def _candidates(text: str, value: Any, convert: Callable[[str], Any]) -> Iterator[str]:
    """Shapes of the value in this text, bare and with the words around it."""
    for start, end in _spots(text, value, convert):
        before, after = _WORD.findall(text[:start])[-2:], _WORD.findall(text[end:])[:1]
        left = [rf"(?i:{' '.join(before[-n:])})\W+".replace(" ", r"\W+") for n in range(1, len(before) + 1)]
        right = [rf"\W+(?i:{word})\b" for word in after]
        for shape in _shapes(text[start:end]):
            yield f"{_START}({shape}){_END}"
            yield from (rf"\b{words}{_START}({shape}){_END}" for words in left)
            yield from (rf"{_START}({shape}){_END}{words}" for words in right)


def _spots(text: str, value: Any, convert: Callable[[str], Any]) -> list[tuple[int, int]]:
    """Where the value stands in the text."""
    if value is None:
        return []
    literal = re.escape(value) if isinstance(value, str) else r"[+-]?\d+(?:[.,]\d+)*"
    spots = re.finditer(f"{_START}(?:{literal}){_END}", text)
    return [match.span() for match in spots if convert(match[0]) == value]


def _shapes(value: str) -> set[str]:
    """Ever more general patterns of a value: digits counted, digits free, words free but for their capital, free."""
    tokens = _TOKEN.findall(value)
    shapes = {"".join(_piece(token, level) for token in tokens) for level in range(4)}
    return {shape for shape in shapes if r"\d" in shape or _LETTER in shape}


def _piece(token: str, level: int) -> str:
    if token.isdecimal():
        return rf"\d{{{len(token)}}}" if level == 0 else r"\d+"
    if token.isspace():
        return r"\s+"
    if re.fullmatch(_CURRENCY, token):
        return _CURRENCY
    if not token.isalpha():
        return re.escape(token)
    if level < 2:
        return f"(?i:{token})"
    return f"[A-Z]{_LETTER}*" if level == 2 and token[0].isupper() else f"{_LETTER}+"


def _known_values(examples: list[tuple[str, Any]], convert: Callable[[str], Any]) -> _Rule | None:
    """One rule for all values seen, longest first, less those that mostly stand in a text for something else."""
    spots = ((text, spot) for text, value in examples for spot in _spots(text, value, convert))
    values = {text[start:end].casefold() for text, (start, end) in spots}
    if not values:
        return None
    known = _any_of(values)
    hits: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for text, value in examples:
        for piece in {match[1] for match in known.finditer(text)}:
            seen[piece.casefold()] += 1
            hits[piece.casefold()] += convert(piece) == value
    kept = {value for value in values if hits[value] >= MIN_PRECISION * seen[value] > 0}
    return _judged(_any_of(kept), examples, convert) if kept else None


def _any_of(values: set[str]) -> re.Pattern[str]:
    literals = "|".join(map(re.escape, sorted(values, key=lambda value: (-len(value), value))))
    return re.compile(f"{_START}({literals}){_END}", re.IGNORECASE)


def _judged(pattern: re.Pattern[str], examples: list[tuple[str, Any]], convert: Callable[[str], Any]) -> _Rule | None:
    """The rule of `pattern`, unless it is wrong too often on the examples."""
    fired = hits = 0
    for text, value in examples:
        if match := pattern.search(text):
            fired += 1
            hits += convert(match[1]) == value
    return _Rule(pattern, _smoothed(hits, fired)) if hits >= MIN_PRECISION * fired > 0 else None


def _smoothed(hits: int, count: int) -> float:
    """Laplace's estimate of a precision, so that two of two is less sure than fifty of fifty-one."""
    return (hits + 1) / (count + 2)
