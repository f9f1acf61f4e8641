"""Which candidates are worth a closer look, and which one ships. Nothing is measured here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from slmops.recipe.search import Objective

State = Literal["failed", "does not fit", "screened out", "measured"]
MEASURE: Mapping[Objective, str] = {
    "latency": "latency_p50_ms",
    "size": "weights_bytes",
    "memory": "peak_rss_bytes",
}
NOISE = 0.05
"""Measures closer than this are taken for equal: a clock that is read twice differs by as much."""


@dataclass
class Candidate:
    """One way to ship the student, and what is known of it.

    Attributes:
        screen: figures of the few rows that every candidate is screened on, `loss` among them.
        figures: of all rows: costs, and `quality` with `interval`.
        verdicts: of each bound; see `slmops.evaluate.gates.judge_gates`.
        why: what stands in its way.
    """

    name: str
    state: State = "screened out"
    screen: Mapping[str, float] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    verdicts: Sequence[Mapping[str, Any]] = ()
    why: str = ""

    @property
    def proven(self) -> bool:
        """Whether it stays within every bound."""
        return bool(self.verdicts) and all(verdict["state"] == "pass" for verdict in self.verdicts)

    @property
    def excess(self) -> float:
        """By how much the upper end of the worst drop passes its bound, in points; endless where rows are too few."""
        ends = [
            verdict["interval"][1] - verdict["max"] if "interval" in verdict else float("inf")
            for verdict in self.verdicts
        ]
        return max(ends, default=float("inf"))


T = TypeVar("T")


def front(found: Sequence[T], costs: Callable[[T], Sequence[float]]) -> list[T]:
    """Those that no other one beats: `costs` gives what is to be low of each.

    One beats another where none of its costs is higher and one is lower.
    """
    known = [costs(one) for one in found]
    return [
        one
        for one, own in zip(found, known, strict=True)
        if not any(all(a <= b for a, b in zip(other, own, strict=True)) and other != own for other in known)
    ]


def finalists(screened: Sequence[Candidate], minimise: Sequence[Objective], most: int) -> list[Candidate]:
    """At most so many of the front of loss and costs; where it is larger, evenly along the loss, its ends included."""
    able = front(screened, lambda one: [one.screen["loss"], *_coarse(one.screen, minimise)])
    able.sort(key=lambda one: one.screen["loss"])
    if len(able) <= most:
        return able
    places = {round(i * (len(able) - 1) / max(most - 1, 1)) for i in range(most)}
    return [able[place] for place in sorted(places)]


def best(proven: Sequence[Candidate], minimise: Sequence[Objective]) -> Candidate:
    """The one to ship: by the first objective, then by the next among those as good up to `NOISE`."""
    left = list(proven)
    for objective in minimise:
        measure = MEASURE[objective]
        least = min(one.figures[measure] for one in left)
        left = [one for one in left if one.figures[measure] <= least * (1 + NOISE)]
    return left[0]


def closest(measured: Sequence[Candidate], figure: str, minimise: Sequence[Objective]) -> Candidate:
    """Of those that stay within no bound for sure, the nearest to it; by the quality `figure` where rows are few, and
    by what it costs where that is the same.
    """

    def far(one: Candidate) -> tuple[float, ...]:
        return one.excess, -one.figures["quality"][figure], *(one.figures[MEASURE[cost]] for cost in minimise)

    return min(measured, key=far)


def on_front(measured: Sequence[Candidate], figure: str, minimise: Sequence[Objective]) -> list[Candidate]:
    """Those that no other one beats in quality and costs."""
    return front(
        measured,
        lambda one: [-one.figures["quality"][figure], *(one.figures[MEASURE[objective]] for objective in minimise)],
    )


def _coarse(screen: Mapping[str, float], minimise: Sequence[Objective]) -> list[float]:
    """Costs of few requests; times in steps of `NOISE`, so that chance beats nobody."""
    costs = {objective: screen[MEASURE[objective]] for objective in minimise}
    return [
        value if objective == "size" else round(math.log(value) / math.log1p(NOISE))
        for objective, value in costs.items()
    ]
