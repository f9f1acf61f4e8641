"""A gate passes, fails, or has not enough evidence; it never passes on nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.errors import BadInput
from slmops.evaluate.gates import MIN_ROWS, judge_gates
from slmops.recipe.models import Gate


def evidence(rows: int = 400, *, kept: float | None = 0.95) -> dict[str, Any]:
    return {
        "n_test": rows,
        "models": {"shipped": {"quality": {"exact_match": 0.8}}},
        "kept": {"exact_match_kept": kept},
        "savings": {"weights_saving": 0.96},
        "parity": 0.99,
    }


def state(rows: int = 400, *, kept: float | None = 0.95, **gate: float) -> str:
    (verdict,) = judge_gates(evidence(rows, kept=kept), {"exact_match_kept": Gate(**gate)})
    return str(verdict["state"])


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        ({"min": 0.92}, "pass"),
        ({"min": 0.95}, "pass"),
        ({"min": 0.9501}, "fail"),
        ({"max": 0.95}, "pass"),
        ({"max": 0.94}, "fail"),
        ({"min": 0.9, "max": 1.0}, "pass"),
        ({"min": 0.96, "max": 1.0}, "fail"),
    ],
)
def test_both_bounds_belong_to_what_passes(gate, expected):
    assert state(**gate) == expected


@given(rows=st.integers(0, MIN_ROWS - 1), low=st.floats(-1, 1))
def test_few_rows_never_pass(rows, low):
    assert state(rows, min=low) == "not enough evidence"


def test_enough_rows_are_enough():
    assert state(MIN_ROWS, min=0.9) == "pass"


def test_a_figure_without_a_value_never_passes():
    (verdict,) = judge_gates(evidence(kept=None), {"exact_match_kept": Gate(min=0.0)})
    assert verdict["state"] == "not enough evidence"
    assert "rows" not in verdict["message"]


@pytest.mark.parametrize("figure", ["exact_match", "exact_match_kept", "weights_saving", "parity"])
def test_every_kind_of_figure_can_be_gated(figure):
    (verdict,) = judge_gates(evidence(), {figure: Gate(min=0.5)})
    assert (verdict["figure"], verdict["state"]) == (figure, "pass")


def test_the_message_says_by_how_much():
    (verdict,) = judge_gates(evidence(), {"exact_match": Gate(min=0.92)})
    assert verdict["message"] == "exact_match: 0.800 is 0.120 below 0.92"
    (verdict,) = judge_gates(evidence(), {"exact_match": Gate(max=0.5)})
    assert verdict["message"] == "exact_match: 0.800 is 0.300 above 0.5"


def test_an_unknown_figure_is_refused_and_the_known_ones_are_named():
    with pytest.raises(BadInput, match=r"evaluate\.gates\.exact_mach") as error:
        judge_gates(evidence(), {"exact_mach": Gate(min=0.9)})
    assert "exact_match_kept" in (error.value.hint or "")


def test_no_gates_no_verdicts():
    assert judge_gates(evidence(), {}) == []
