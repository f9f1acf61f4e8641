"""Paired tests, looked up from either side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from slmops.report.words import lower_is_better

LEVEL = 0.05
"""A difference counts as shown below this adjusted p."""


@dataclass(frozen=True)
class Difference:
    """How `ours` stands against `theirs` on the same rows; `points`, `low` and `high` are hundredths of the figure."""

    ours: str
    theirs: str
    figure: str
    points: float
    low: float
    high: float
    p: float
    test: str

    @property
    def reading(self) -> Literal["better", "worse", "no difference shown"]:
        """Better as the figure means it: a higher accuracy, a lower perplexity."""
        if self.p >= LEVEL or self.points == 0:
            return "no difference shown"
        return "better" if (self.points > 0) != lower_is_better(self.figure) else "worse"


def difference(evidence: Mapping[str, Any], ours: str, theirs: str, figure: str) -> Difference | None:
    """The test of two models on `figure`, or None where they were not compared."""
    for test in evidence["paired"]:
        if test["figure"] != figure or {test["ours"], test["theirs"]} != {ours, theirs}:
            continue
        low, high = test["interval"]
        same = test["ours"] == ours
        points = test["points"] if same else -test["points"]
        ends = (low, high) if same else (-high, -low)
        return Difference(ours, theirs, figure, points, *ends, test["p_adjusted"], test["test"])
    return None


def against_all(evidence: Mapping[str, Any], ours: str, figure: str) -> list[Difference]:
    """`ours` against every other model it was compared with."""
    tests = (difference(evidence, ours, theirs, figure) for theirs in evidence["models"] if theirs != ours)
    return [test for test in tests if test]
