"""What was learned against what was bought, and when that is enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Ended = Literal["flat", "rounds", "pool", "budget"]
"""Why no further round came: no gain, no more rounds, no more rows, or no more money."""


@dataclass(frozen=True)
class Point:
    """What a student reached after a round.

    Attributes:
        asked: rows of the pool that the teacher was asked by then.
        answers: of them that were learned from.
        value: the task's main figure on the validation rows.
    """

    round: int
    asked: int
    answers: int
    value: float


def flat(values: Sequence[float], patience: int, min_gain: float) -> bool:
    """Whether the last `patience` values are together no more than `min_gain` above the best one before them."""
    before, last = values[:-patience], values[-patience:]
    return bool(before) and max(last) <= max(before) + min_gain
