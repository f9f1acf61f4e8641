"""Thresholds applied to evidence: pass, fail, or not enough evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slmops.errors import BadInput
from slmops.recipe.models import Gate

MIN_ROWS = 30
"""Fewer test rows than this decide nothing."""


def judge_gates(evidence: Mapping[str, Any], gates: Mapping[str, Gate]) -> list[dict[str, Any]]:
    """One verdict per gate: `figure`, `value`, `min`, `max`, `state` and a `message` for people.

    Figures are the shipped model's quality, what it keeps and saves against the teacher, and `parity`. One that has
    no value, or rests on fewer than `MIN_ROWS` rows, never passes.

    Raises:
        BadInput: a gate names a figure that no evaluation has; the known ones are listed.
    """
    figures = {**evidence["models"]["shipped"]["quality"], **evidence["kept"], **evidence["savings"]}
    figures["parity"] = evidence["parity"]
    return [_judge(name, figures, gate, evidence["n_test"]) for name, gate in gates.items()]


def _judge(name: str, figures: Mapping[str, float | None], gate: Gate, rows: int) -> dict[str, Any]:
    if name not in figures:
        raise BadInput(f"evaluate.gates.{name} is no figure of this evaluation", hint="known: " + ", ".join(figures))
    value = figures[name]
    if rows < MIN_ROWS:
        state, why = "not enough evidence", f"{rows} test rows; {MIN_ROWS} are needed"
    elif value is None:
        state, why = "not enough evidence", "too little to compare with"
    elif gate.min is not None and value < gate.min:
        state, why = "fail", f"{value:.3f} is {gate.min - value:.3f} below {gate.min}"
    elif gate.max is not None and value > gate.max:
        state, why = "fail", f"{value:.3f} is {value - gate.max:.3f} above {gate.max}"
    else:
        state, why = "pass", f"{value:.3f} is within {_bounds(gate)}"
    return {
        "figure": name,
        "value": value,
        "min": gate.min,
        "max": gate.max,
        "state": state,
        "message": f"{name}: {why}",
    }


def _bounds(gate: Gate) -> str:
    return " and ".join(
        f"{word} {bound}" for word, bound in (("at least", gate.min), ("at most", gate.max)) if bound is not None
    )
