"""Thresholds applied to evidence: pass, fail, or not enough evidence.

A gate looks at a value and, where it asks for confidence, at the 95 % interval around it. It passes when all of that
lies within its bounds, fails when all of it lies beyond one of them, and otherwise the rows at hand cannot tell. What
rests on too few rows, or has no value, never passes and never fails.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from slmops.errors import BadInput
from slmops.evaluate.evidence import Ends, Figure, drop, figures, unseen
from slmops.recipe.evaluate import Gate

State = Literal["pass", "fail", "not enough evidence"]


class Subject(NamedTuple):
    """What a gate looks at: a value, its interval or twice the value, the bounds, and words for them.

    All of it is in the same unit: that of the figure, or points where `unit` is 100. `resampled` is the interval before
    it was widened to what its rows allow.
    """

    value: float
    ends: Ends
    resampled: Ends
    min: float | None
    max: float | None
    what: str
    note: str = ""
    unit: float = 1.0


COMPARED_FIGURES = (
    "time_saving_torch",
    "time_saving_same_engine",
    "weights_saving",
    "memory_saving",
    "same_text",
    "regression_failures",
)
"""Figures that every evaluation of a recipe has, whatever its task, beside costs and quality."""


def judge_gates(
    evidence: Mapping[str, Any], gates: Mapping[str, Sequence[Gate]], *, role: str = "shipped"
) -> list[dict[str, Any]]:
    """One verdict per gate: `figure`, `value`, `min`, `max`, `state` and a `message` for people, which says by how much
    a bound is missed; `wanted`, the bound in words; and where they apply `of`, `interval` and `rows_enough`, the rows
    with which the state would be clear if all else stays as it is. `value`, `min`, `max` and `interval` are the
    figure's, its ratio to the other model's, or, for `max_drop`, the drop in points.

    Figures are all those of the model in `role`; see `slmops.evaluate.evidence.figures`.

    Raises:
        BadInput: a gate names a figure or a model that this evaluation does not have; the known ones are listed.
    """
    known = figures(evidence, role)
    return [_judge(evidence, known, role, name, gate) for name, several in gates.items() for gate in several]


def decide(ends: Ends, low: float | None, high: float | None) -> State:
    """The state of an interval against the bounds `low` and `high`, each of which may be absent and belongs to what
    passes.
    """
    least, most = ends
    if (low is not None and most < low) or (high is not None and least > high):
        return "fail"
    if (low is None or least >= low) and (high is None or most <= high):
        return "pass"
    return "not enough evidence"


def _judge(
    evidence: Mapping[str, Any], known: Mapping[str, Figure], role: str, name: str, gate: Gate
) -> dict[str, Any]:
    if name not in known:
        raise BadInput(f"evaluate.gates.{name} is no figure of this evaluation", hint="known: " + ", ".join(known))
    figure = known[name]
    verdict: dict[str, Any] = {
        "figure": name,
        "value": figure.value,
        "min": gate.min,
        "max": gate.max,
        "wanted": _wanted(gate),
    }
    verdict |= {} if gate.of is None else {"of": gate.of}
    if figure.rows < figure.enough:
        why = f"{figure.rows} rows; {figure.enough} are needed"
        return verdict | {"state": "not enough evidence", "message": f"{name}: {why}"}
    subject = _subject(evidence, figure, role, name, gate)
    if isinstance(subject, str):
        return verdict | {"state": "not enough evidence", "message": f"{name}: {subject}"}
    state = decide(subject.ends, subject.min, subject.max)
    verdict |= {"value": subject.value, "min": subject.min, "max": subject.max, "state": state}
    verdict |= {"interval": list(subject.ends)} if subject.ends[0] < subject.ends[1] else {}
    message = f"{name}: {_said(subject)} {_verdict(state, subject)}"
    if state == "not enough evidence":
        enough = _rows_enough(subject, figure)
        verdict["rows_enough"] = enough
        message += f"; {f'about {enough:,} rows' if enough else 'no number of rows'} would decide"
    return verdict | {"message": message}


def _subject(evidence: Mapping[str, Any], figure: Figure, role: str, name: str, gate: Gate) -> Subject | str:
    """What the gate looks at, or why there is nothing to look at."""
    if figure.value is None:
        return "no reliable value"
    if gate.of is None:
        return _alone(figure.value, figure, gate, "")
    if gate.of not in evidence["models"]:
        raise BadInput(
            f"evaluate.gates.{name}: this evaluation has no {gate.of}", hint=f"known: {', '.join(evidence['models'])}"
        )
    if gate.max_drop is not None:
        return _drop(evidence, figure, (role, gate.of), name, gate.max_drop)
    others = figures(evidence, gate.of)
    if name not in others:
        raise BadInput(f"evaluate.gates.{name}: the {gate.of} has no such figure", hint="leave `of` out")
    theirs = others[name].value
    if theirs is None or theirs <= 0:
        return f"the {gate.of}'s is {theirs}; there is no ratio to it"
    kept = figures(evidence, role).get(f"{name}_kept", Figure(None)).interval
    ratio = figure._replace(interval=kept, scale=figure.scale / theirs)
    return _alone(figure.value / theirs, ratio, gate, f" of the {gate.of}'s")


def _alone(value: float, figure: Figure, gate: Gate, what: str) -> Subject | str:
    if not gate.confidence:
        return Subject(value, (value, value), (value, value), gate.min, gate.max, what)
    if figure.interval is None:
        return "it has no interval, so no confidence"
    ends = _widened(value, figure.interval, figure)
    return Subject(value, ends, figure.interval, gate.min, gate.max, what)


def _drop(evidence: Mapping[str, Any], figure: Figure, roles: tuple[str, str], name: str, most: float) -> Subject | str:
    ours, theirs = roles
    if name not in evidence["models"][ours].get("quality", {}):
        raise BadInput(
            f"evaluate.gates.{name}: `max_drop` is for figures of quality", hint="use `min` or `max` with `of`"
        )
    found = drop(evidence, name, ours, theirs)
    if found is None:
        return f"nothing to compare with the {theirs}'s"
    value, resampled = found.value * 100, (found.interval[0] * 100, found.interval[1] * 100)
    ends = _widened(value, resampled, figure._replace(scale=figure.scale * 100))
    what, note = f" points below the {theirs}'s", "" if found.paired else ", rows not paired"
    return Subject(value, ends, resampled, None, most * 100, what, note, unit=100)


def _widened(value: float, ends: Ends, figure: Figure) -> Ends:
    """An interval that is no narrower than its rows allow; see `unseen`."""
    least = unseen(figure.rows) * figure.scale
    return min(ends[0], value - least), max(ends[1], value + least)


def _rows_enough(subject: Subject, figure: Figure) -> int | None:
    """Rows with which the interval would lie on one side of the bound it straddles, if the value stays as it is.

    Intervals narrow with the square root of the rows, and never below `unseen`. None where the value is the bound, or
    no further from it than one row in a million.
    """
    (least, most), narrow = subject.ends, subject.resampled
    needed = [figure.rows]
    for bound in (subject.min, subject.max):
        if bound is None or not least <= bound <= most:
            continue
        margin = abs(subject.value - bound)
        share = margin / figure.scale / subject.unit
        if share < 1e-6:
            return None
        side = narrow[1] - subject.value if subject.value < bound else subject.value - narrow[0]
        hidden = math.log(0.025) / math.log1p(-min(share, 1 - 1e-9))
        needed += [math.ceil(figure.rows * (side / margin) ** 2), math.ceil(hidden)]
    return max(needed)


def _said(subject: Subject) -> str:
    low, high = subject.ends
    around = f" (95 % interval {_number(low)} to {_number(high)}{subject.note})" if low < high else ""
    return f"{_number(subject.value)}{subject.what}{around}"


def _verdict(state: State, subject: Subject) -> str:
    value, low, high = subject.value, subject.min, subject.max
    if state == "pass":
        return f"is {_bounds(low, high)}"
    if state == "not enough evidence":
        return f"may or may not be {_bounds(low, high)}"
    beyond = [f"is {_number(low - value)} below {_bound(low)}"] if low is not None and value < low else []
    beyond += [f"is {_number(value - high)} above {_bound(high)}"] if high is not None and value > high else []
    return beyond[0]


def _bounds(low: float | None, high: float | None) -> str:
    return " and ".join(
        f"{word} {_bound(end)}" for word, end in (("at least", low), ("at most", high)) if end is not None
    )


def _wanted(gate: Gate) -> str:
    if gate.max_drop is not None:
        return f"at most {gate.max_drop * 100:g} points below the {gate.of}'s, with 95 % confidence"
    of = f" of the {gate.of}'s" if gate.of else ""
    return _bounds(gate.min, gate.max) + of + (", with 95 % confidence" if gate.confidence else "")


def _bound(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}".removesuffix(".000")
