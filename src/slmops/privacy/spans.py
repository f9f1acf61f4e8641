"""Places in a text that are not to leave, and what becomes of several at one place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple


class Span(NamedTuple):
    """Characters `start` to `end` of a text, end excluded, and the kind of what stands there: `email`."""

    start: int
    end: int
    kind: str


Detector = Callable[[str], Iterator[Span]]
"""Finds spans in a text, in any order; they may overlap."""


def united(spans: Iterable[Span]) -> list[Span]:
    """The spans without overlap, in order: those that overlap become one, of the kind of the longest.

    The shorter one's rest is not given up, or the end of a secret would stay in the text. Of equals the kind that was
    found first counts. Spans that only touch stay two.
    """
    found: list[Span] = []
    longest = 0
    ranked = sorted(enumerate(spans), key=lambda one: (one[1].start, one[1].start - one[1].end, one[0]))
    for _, span in ranked:
        length = span.end - span.start
        if length <= 0:
            continue
        if found and span.start < found[-1].end:
            last = found[-1]
            kind = span.kind if length > longest else last.kind
            longest = max(longest, length)
            found[-1] = Span(last.start, max(last.end, span.end), kind)
        else:
            found.append(span)
            longest = length
    return found
