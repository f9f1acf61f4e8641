"""Reading evidence: every figure of a model by name, with its certainty and the rows it rests on.

Evidence of format 1, which bundles of the first release carry, has the interval of exact match alone and knows the
shipped model's rivals alone; what it lacks is absent here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

JUDGED = "judged."
"""Begins the names of what a judge says."""

MIN_ROWS = 30
"""Fewer test rows than this decide nothing."""

Ends = tuple[float, float]


class Figure(NamedTuple):
    """One figure.

    Attributes:
        value: None where there was too little to compute it from.
        interval: both ends at 95 %, where there are any.
        rows: what it rests on.
        enough: rows that it must rest on to decide anything.
        scale: distance between the least and the greatest value of one row.
    """

    value: float | None
    interval: Ends | None = None
    rows: int = 0
    enough: int = MIN_ROWS
    scale: float = 1.0


def figures(evidence: Mapping[str, Any], role: str = "shipped") -> dict[str, Figure]:
    """All figures of the model in `role`; of the shipped model also what it keeps and saves, the regression suite
    (`regression_failures`) and the judge's (`judged.NAME`).
    """
    rows = evidence["n_test"]
    found = {name: _figure(value, interval, rows) for name, value, interval in _own(evidence["models"][role])}
    if role != "shipped":
        return found
    found |= _against_teacher(evidence)
    if suite := evidence.get("regression"):
        found["regression_failures"] = Figure(float(suite["failures"]), rows=suite["rows"], enough=1)
    if judged := evidence.get("judged"):
        found |= {f"{JUDGED}{name}": figure for name, figure in _judged(judged)}
    return found


def _own(model: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name, value in model.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value, None
    for name, value in model.get("quality", {}).items():
        yield name, value, interval_of(model, name)


def _against_teacher(evidence: Mapping[str, Any]) -> dict[str, Figure]:
    rows, found = evidence["n_test"], {}
    base = evidence["models"].get("teacher", {}).get("quality", {})
    for name, value in evidence.get("kept", {}).items():
        theirs = base.get(name.removesuffix("_kept"))
        # One row more or less of ours moves the ratio by more than a row where the teacher's figure is below 1.
        scale = 1 / theirs if theirs else 1.0
        found[name] = _figure(value, evidence.get("kept_interval", {}).get(name), rows, scale)
    for name, value in evidence.get("savings", {}).items():
        found[name] = _figure(value, None, rows)
    return found | ({"same_text": _figure(evidence["same_text"], None, rows)} if "same_text" in evidence else {})


def interval_of(model: Mapping[str, Any], figure: str) -> Ends | None:
    """The 95 % interval of one figure of quality."""
    intervals = model.get("interval", {})
    if not isinstance(intervals, Mapping):
        intervals = {"exact_match": intervals}
    ends = intervals.get(figure)
    return None if ends is None else (ends[0], ends[1])


def _judged(judged: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    """What the judge says; without a value where it cannot be relied on."""
    for name, value in judged["figures"].items():
        ends = judged["interval"].get(name)
        yield name, _figure(value if judged["reliable"] else None, ends, judged["readable"], judged["scale"])


def _figure(value: Any, interval: Any, rows: int, scale: float = 1.0) -> Figure:
    if value is None or not math.isfinite(value):
        return Figure(None, rows=rows)
    whole = interval is not None and all(end is not None and math.isfinite(end) for end in interval)
    return Figure(float(value), (interval[0], interval[1]) if whole else None, rows, scale=scale)


class Drop(NamedTuple):
    """How far our figure lies below theirs (0.01 is a point), with its 95 % interval, and whether rows were paired."""

    value: float
    interval: Ends
    paired: bool


def drop(evidence: Mapping[str, Any], figure: str, ours: str, theirs: str) -> Drop | None:
    """How far `figure` of the model `ours` lies below that of `theirs`; None where there is nothing to tell from.

    Where no paired test of the two models is at hand, the interval is made from those of both, as if each had answered
    rows of its own. That is wider than need be, because easy rows are easy for both. Source: Newcombe (1998), "Interval
    estimation for the difference between independent proportions", Statistics in Medicine 17, method 10.
    """
    for points, (low, high) in _paired(evidence, figure, ours, theirs):
        return Drop(-points, (-high, -low), paired=True)
    left, right = (evidence["models"][role] for role in (ours, theirs))
    a, b = left.get("quality", {}).get(figure), right.get("quality", {}).get(figure)
    ends_a, ends_b = interval_of(left, figure), interval_of(right, figure)
    if a is None or b is None or ends_a is None or ends_b is None:
        return None
    low = (b - a) - math.hypot(b - ends_b[0], ends_a[1] - a)
    high = (b - a) + math.hypot(ends_b[1] - b, a - ends_a[0])
    return Drop(b - a, (low, high), paired=False)


def _paired(evidence: Mapping[str, Any], figure: str, ours: str, theirs: str) -> Iterator[tuple[float, Ends]]:
    """The difference ours - theirs and its interval from tests of the same rows, in shares of 1."""
    for test in evidence.get("paired", ()):
        if "rival" in test:  # format 1
            if (ours, theirs) == ("shipped", test["rival"]) and figure in test:
                yield test[figure]["points"] / 100, tuple(test[figure]["interval"])
        elif test["figure"] == figure and {test["ours"], test["theirs"]} == {ours, theirs}:
            low, high = sorted(end / 100 * (1 if test["ours"] == ours else -1) for end in test["interval"])
            yield test["points"] / 100 * (1 if test["ours"] == ours else -1), (low, high)


def unseen(rows: int) -> float:
    """The largest share of cases that `rows` rows can hide at 95 %: 1 - 0.025^(1/rows), some 3.7 / rows.

    Resampling knows nothing of cases that no row shows: two models that answer all rows alike would differ by exactly
    nothing. Source: the "rule of three", Hanley & Lippman-Hand (1983), "If nothing goes wrong, is everything all
    right?", JAMA 249; here two-sided.
    """
    return float(1 - 0.025 ** (1 / rows)) if rows else 1.0
