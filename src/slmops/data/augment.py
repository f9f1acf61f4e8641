"""Changed copies of training rows: a student that has seen typos and capitals is less surprised by them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, pairwise
from typing import Any

from slmops.data.check import text_digest
from slmops.recipe.data import Augment
from slmops.tasks import Row, with_asked

_WORD = re.compile(r"[^\W\d_]{4,}")
"""Letters alone: another number is another message. Of a short word a typo leaves too little."""

_CAPITALS = 0.25
"""Of the copies with other case: the others are in small letters, which is how people in a hurry write."""

Spans = Sequence[tuple[int, int]]


def augmented(rows: Sequence[Row], held_out: Sequence[Row], kind: str, wanted: Augment, seed: int) -> list[Row]:
    """Changed copies of some of `rows`, in their order; the id of each says of which row and by what it is.

    Of a row in which nothing can be changed there is no copy, and none that has the text of another row or, case aside,
    of one of `held_out`.

    Args:
        kind: of the task; of an input that has parts the asked one is changed.
        seed: the same rows and seed give the same copies.
    """
    taken = {row["input"] for row in rows}
    foreign = {text_digest(row["input"]) for row in held_out}
    changes: dict[str, tuple[float, Callable[[str, Spans, random.Random], str]]] = {
        "typos": (wanted.typos, partial(_mistyped, share=wanted.typo_words)),
        "case": (wanted.case, _recased),
    }
    copies = []
    for name, (share, change) in changes.items():
        rng = random.Random(f"augment:{name}:{seed}")  # noqa: S311
        for i in sorted(rng.sample(range(len(rows)), round(share * len(rows)))):
            changed = _Changed(change, rows[i]["output"], rng)
            text = with_asked(kind, rows[i]["input"], changed)
            if text not in taken and text_digest(text) not in foreign:
                taken.add(text)
                copies.append({**rows[i], "id": f"{rows[i]['id']}~{name}", "input": text})
    return copies


class _Changed:
    """A change that leaves alone what the answer takes from the text."""

    def __init__(self, change: Callable[[str, Spans, random.Random], str], answer: Any, rng: random.Random) -> None:
        values = sorted({value for value in _values(answer) if value.strip()}, key=lambda value: (-len(value), value))
        self._change, self._rng = change, rng
        self._kept = re.compile("|".join(map(re.escape, values))) if values else None

    def __call__(self, text: str) -> str:
        kept = [match.span() for match in self._kept.finditer(text)] if self._kept else []
        return self._change(text, kept, self._rng)


def _values(answer: Any) -> Iterator[str]:
    """All texts and numbers in an answer."""
    if isinstance(answer, dict | list):
        for one in answer.values() if isinstance(answer, dict) else answer:
            yield from _values(one)
    elif answer is not None and not isinstance(answer, bool):
        yield str(answer)


def _mistyped(text: str, kept: Spans, rng: random.Random, *, share: float) -> str:
    """`text` with a typo in a `share` of its words, and in one at least."""
    words = [match.span() for match in _WORD.finditer(text)]
    words = [(start, end) for start, end in words if all(end <= first or start >= last for first, last in kept)]
    if not words:
        return text
    for start, end in sorted(rng.sample(words, max(1, round(share * len(words)))), reverse=True):
        text = text[:start] + _typo(text[start:end], rng) + text[end:]
    return text


def _typo(word: str, rng: random.Random) -> str:
    """`word` with two letters swapped, one lost or one doubled; its first letter stays."""
    i = rng.randrange(1, len(word) - 1)
    match rng.choice(("swapped", "lost", "doubled")):
        case "swapped":
            return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
        case "lost":
            return word[:i] + word[i + 1 :]
        case _:
            return word[: i + 1] + word[i:]


def _recased(text: str, kept: Spans, rng: random.Random) -> str:
    """`text` in small letters or, now and then, in capitals."""
    change = str.upper if rng.random() < _CAPITALS else str.lower
    edges = [0, *chain.from_iterable(kept), len(text)]
    pieces = [text[start:end] for start, end in pairwise(edges)]
    return "".join(piece if i % 2 else change(piece) for i, piece in enumerate(pieces))
