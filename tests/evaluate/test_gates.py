"""A gate passes, fails, or has not enough evidence; it never passes on nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from slmops.errors import BadInput
from slmops.evaluate.evidence import MIN_ROWS, unseen
from slmops.evaluate.gates import decide, judge_gates
from slmops.recipe.evaluate import Gate

NOT_ENOUGH = "not enough evidence"
relaxed = settings(deadline=None)
SHARE = st.floats(0, 1)
POINTS = st.floats(-100, 100)


def evidence(
    rows: int = 400,
    *,
    ours: float | None = 0.8,
    theirs: float | None = 0.85,
    points: tuple[float, float, float] | None = (-5.0, -8.0, -2.0),
    kept: float | None = 0.95,
) -> dict[str, Any]:
    """Of a shipped model and its teacher; `points` are our lead over the teacher and its interval."""
    paired = []
    if points is not None:
        value, low, high = points
        paired = [
            {"ours": "shipped", "theirs": "teacher", "figure": "exact_match", "points": value, "interval": [low, high]}
        ]
    return {
        "format": 2,
        "n_test": rows,
        "models": {
            "shipped": {
                "quality": {"exact_match": ours},
                "interval": {"exact_match": [0.76, 0.84]},
                "latency_p95_ms": 40.0,
                "engine": "x",
            },
            "teacher": {
                "quality": {"exact_match": theirs},
                "interval": {"exact_match": [0.81, 0.88]},
                "latency_p95_ms": 200.0,
            },
        },
        "kept": {"exact_match_kept": kept},
        "kept_interval": {"exact_match_kept": [0.93, 0.97]},
        "savings": {"weights_saving": 0.96},
        "same_text": 0.99,
        "paired": paired,
    }


def verdict(evidence: dict[str, Any], figure: str = "exact_match", **gate: Any) -> dict[str, Any]:
    (verdict,) = judge_gates(evidence, {figure: [Gate(**gate)]})
    return verdict


def state(rows: int = 400, *, kept: float | None = 0.95, **gate: float) -> str:
    return str(verdict(evidence(rows, kept=kept), "exact_match_kept", **gate)["state"])


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
        # With confidence all of 0.93 to 0.97 has to lie within.
        ({"min": 0.92, "confidence": 0.95}, "pass"),
        ({"min": 0.94, "confidence": 0.95}, NOT_ENOUGH),
        ({"min": 0.98, "confidence": 0.95}, "fail"),
        ({"max": 0.98, "confidence": 0.95}, "pass"),
        ({"max": 0.92, "confidence": 0.95}, "fail"),
    ],
)
def test_both_bounds_belong_to_what_passes(gate, expected):
    assert state(**gate) == expected


@relaxed
@given(rows=st.integers(0, MIN_ROWS - 1), low=st.floats(-1, 1))
def test_few_rows_never_pass(rows, low):
    assert state(rows, min=low) == NOT_ENOUGH


def test_enough_rows_are_enough():
    assert state(MIN_ROWS, min=0.9) == "pass"


@relaxed
@given(
    rows=st.integers(0, 1000),
    missing=st.sampled_from(["value", "theirs", "rows"]),
    gate=st.sampled_from(
        [{"min": -9.0}, {"max": 9.0}, {"min": -9.0, "of": "teacher"}, {"max_drop": 0.99, "of": "teacher"},
         {"min": -9.0, "confidence": 0.95}, {"min": -9.0, "of": "teacher", "confidence": 0.95}]
    ),
    nothing=st.sampled_from([None, math.nan, math.inf]),
)  # fmt: skip
def test_nothing_never_passes(rows, missing, gate, nothing):
    """Whatever is wanted, a figure that is missing, not finite or without rows does not pass."""
    given_ = evidence(rows)
    if missing == "rows":
        given_["n_test"] = 0
    elif missing == "value":
        given_["models"]["shipped"]["quality"]["exact_match"] = nothing
    else:
        assume("of" in gate)
        given_["models"]["teacher"]["quality"]["exact_match"] = nothing if "max_drop" not in gate else None
        given_["paired"] = []
    assert verdict(given_, **gate)["state"] == NOT_ENOUGH


RANK = {"fail": 0, NOT_ENOUGH: 1, "pass": 2}


@relaxed
@given(
    st.tuples(SHARE, SHARE).map(sorted),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
    SHARE,
)
def test_a_better_figure_is_never_judged_worse(values, below, above, bound):
    """`min` is monotone: moving value and interval up can only better the state; `max` the other way round."""
    worse, better = values
    at_least = [RANK[decide((value - below, value + above), bound, None)] for value in (worse, better)]
    at_most = [RANK[decide((value - below, value + above), None, bound)] for value in (worse, better)]
    assert at_least[0] <= at_least[1]
    assert at_most[0] >= at_most[1]


@relaxed
@given(SHARE, SHARE, st.tuples(SHARE, SHARE).map(sorted))
def test_a_looser_bound_is_never_harder_to_pass(low, high, bounds):
    assume(low <= high)
    strict, loose = bounds[1], bounds[0]
    assert RANK[decide((low, high), strict, None)] <= RANK[decide((low, high), loose, None)]


@relaxed
@given(SHARE, SHARE, st.none() | SHARE, st.none() | SHARE)
def test_narrower_evidence_of_the_same_value_never_turns_a_pass_into_a_fail(value, width, low, high):
    assume(low is None or high is None or low <= high)
    wide, narrow = (decide((value - w, value + w), low, high) for w in (width, width / 2))
    assert {wide, narrow} != {"pass", "fail"}
    if wide != NOT_ENOUGH:
        assert narrow == wide


@relaxed
@given(value=SHARE, theirs=st.floats(0.01, 1), bound=st.floats(0, 2))
def test_a_ratio_and_the_kept_share_and_its_own_bound_agree(value, theirs, bound):
    """0.92 of the teacher's is 0.92 times what the teacher has, and is what `exact_match_kept` says."""
    assume(not math.isclose(value, bound * theirs, rel_tol=1e-9, abs_tol=1e-12))
    given_ = evidence(ours=value, theirs=theirs, kept=value / theirs)
    states = {
        verdict(given_, min=bound, of="teacher")["state"],
        verdict(given_, "exact_match_kept", min=bound)["state"],
        verdict(given_, min=bound * theirs)["state"],
    }
    assert len(states) == 1


@relaxed
@given(lead=POINTS, below=st.floats(0, 20), above=st.floats(0, 20), most=st.floats(0, 0.99))
def test_a_drop_is_judged_by_the_end_of_the_interval_that_counts(lead, below, above, most):
    """Pass: even the lower end of our lead is within the bound; fail: not even the upper end is."""
    least = unseen(400) * 100
    low, high = min(lead - below, lead - least), max(lead + above, lead + least)
    assume(min(abs(low + most * 100), abs(high + most * 100)) > 1e-6)
    expected = "pass" if low >= -most * 100 else "fail" if high < -most * 100 else NOT_ENOUGH
    found = verdict(evidence(points=(lead, lead - below, lead + above)), max_drop=most, of="teacher")
    assert found["state"] == expected


@relaxed
@given(lead=st.floats(-20, 20), half=st.floats(0.1, 20), most=st.floats(0, 0.2))
def test_the_rows_that_would_be_enough_are_enough(lead, half, most):
    """If nothing but the number of rows changes, that many rows give a state, and some less do not."""
    assume(abs(lead + most * 100) > 0.2)
    found = verdict(evidence(points=(lead, lead - half, lead + half)), max_drop=most, of="teacher")
    assume(found["state"] == NOT_ENOUGH)
    enough = found["rows_enough"]

    def with_rows(rows: int) -> str:
        narrower = half * math.sqrt(400 / rows)
        more = evidence(rows, points=(lead, lead - narrower, lead + narrower))
        return str(verdict(more, max_drop=most, of="teacher")["state"])

    assert enough >= 400
    assert with_rows(enough + 1) != NOT_ENOUGH
    assert with_rows(max(400, int(enough * 0.9))) == NOT_ENOUGH


def test_models_that_answer_alike_still_need_rows():
    """A bootstrap of equal answers has no width; that many rows can hide a point all the same."""
    same = (0.0, 0.0, 0.0)
    few, many = (verdict(evidence(rows, points=same), max_drop=0.01, of="teacher") for rows in (300, 400))
    assert (few["state"], many["state"]) == (NOT_ENOUGH, "pass")
    assert few["rows_enough"] == 368
    assert verdict(evidence(10_000, points=same), max_drop=0.0, of="teacher")["state"] == NOT_ENOUGH


def test_the_pair_may_be_written_the_other_way_round():
    given_ = evidence()
    (test,) = given_["paired"]
    turned = [{**test, "ours": "teacher", "theirs": "shipped", "points": 5.0, "interval": [2.0, 8.0]}]
    for bound in (0.01, 0.05, 0.09):
        gate = {"max_drop": bound, "of": "teacher"}
        assert verdict({**given_, "paired": turned}, **gate) == verdict(given_, **gate)


def test_without_pairs_the_interval_is_wider_and_the_message_says_so():
    found = verdict(evidence(points=None), max_drop=0.04, of="teacher")
    assert found["state"] == NOT_ENOUGH
    assert "rows not paired" in found["message"]
    # Newcombe's method: 0.05 -/+ the root of the sum of squares of the distances to the ends.
    assert found["interval"] == pytest.approx(
        [100 * (0.05 - math.hypot(0.04, 0.04)), 100 * (0.05 + math.hypot(0.03, 0.04))]
    )


def test_the_rows_that_would_decide_are_told():
    found = verdict(evidence(points=(-0.5, -2.5, 1.5)), max_drop=0.01, of="teacher")
    assert found["state"] == NOT_ENOUGH
    assert found["rows_enough"] == 6400
    assert found["message"] == (
        "exact_match: 0.500 points below the teacher's (95 % interval -1.500 to 2.500) may or may not be at most 1; "
        "about 6,400 rows would decide"
    )
    undecided = verdict(evidence(points=(-1.0, -2.5, 1.5)), max_drop=0.01, of="teacher")
    assert undecided["rows_enough"] is None
    assert "no number of rows would decide" in undecided["message"]


def test_the_message_says_by_how_much():
    given_ = evidence()
    assert verdict(given_, min=0.92)["message"] == "exact_match: 0.800 is 0.120 below 0.92"
    assert verdict(given_, max=0.5)["message"] == "exact_match: 0.800 is 0.300 above 0.5"
    assert (
        verdict(given_, min=0.99, of="teacher")["message"] == "exact_match: 0.941 of the teacher's is 0.049 below 0.99"
    )
    assert verdict(given_, max_drop=0.01, of="teacher")["message"] == (
        "exact_match: 5 points below the teacher's (95 % interval 2 to 8) is 4 above 1"
    )


@pytest.mark.parametrize("figure", ["exact_match", "exact_match_kept", "weights_saving", "same_text"])
def test_every_kind_of_figure_can_be_gated(figure):
    found = verdict(evidence(), figure, min=0.5)
    assert (found["figure"], found["state"]) == (figure, "pass")


def test_costs_can_be_gated_alone_and_beside_the_teachers():
    assert verdict(evidence(), "latency_p95_ms", max=40)["state"] == "pass"
    assert verdict(evidence(), "latency_p95_ms", max=39)["state"] == "fail"
    assert verdict(evidence(), "latency_p95_ms", max=0.2, of="teacher")["state"] == "pass"
    assert verdict(evidence(), "latency_p95_ms", max=0.1, of="teacher")["state"] == "fail"


def test_two_gates_on_one_figure_are_two_verdicts():
    gates = [Gate(min=0.7), Gate(min=0.99, of="teacher")]
    assert [found["state"] for found in judge_gates(evidence(), {"exact_match": gates})] == ["pass", "fail"]


def test_the_regression_suite_counts_rows_of_its_own():
    for rows, failures, expected in ((1, 0, "pass"), (3, 1, "fail"), (0, 0, NOT_ENOUGH)):
        given_ = evidence(0) | {"regression": {"rows": rows, "failures": failures, "failed": []}}
        found = verdict(given_, "regression_failures", max=0)
        assert found["state"] == expected
        assert "1 is 1 above 0" in found["message"] or expected != "fail"


def judged(**changes: Any) -> dict[str, Any]:
    return {
        "figures": {"win_rate": 0.6},
        "interval": {"win_rate": [0.5, 0.7]},
        "readable": 100,
        "reliable": True,
        "scale": 1.0,
        **changes,
    }


def test_a_judged_figure_is_gated_by_its_full_name_alone():
    given_ = evidence() | {"judged": judged()}
    assert verdict(given_, "judged.win_rate", min=0.5)["state"] == "pass"
    assert verdict(given_, "judged.win_rate", min=0.55, confidence=0.95)["state"] == NOT_ENOUGH
    with pytest.raises(BadInput, match=r"evaluate\.gates\.win_rate is no figure") as error:
        verdict(given_, "win_rate", min=0.5)
    assert "judged.win_rate" in (error.value.hint or "")


@pytest.mark.parametrize(
    "changes", [{"reliable": False}, {"readable": MIN_ROWS - 1}, {"figures": {"win_rate": None}}, {"readable": 0}]
)
def test_a_judge_that_cannot_be_relied_on_passes_nothing(changes):
    given_ = evidence() | {"judged": judged(**changes)}
    for gate in ({"min": 0.0}, {"max": 1.0}):
        assert verdict(given_, "judged.win_rate", **gate)["state"] == NOT_ENOUGH


def test_a_bundle_of_the_first_format_is_read():
    old = {
        "n_test": 400,
        "models": {
            "shipped": {"quality": {"exact_match": 0.8, "macro_f1": 0.7}, "interval": [0.76, 0.84]},
            "baseline": {"quality": {"exact_match": 0.7, "macro_f1": 0.6}, "interval": [0.66, 0.74]},
        },
        "kept": {}, "savings": {}, "same_text": None,
        "paired": [{"rival": "baseline", "exact_match": {"points": 10.0, "interval": [0.06, 0.14], "p": 0.001}}],
    }  # fmt: skip
    found = verdict(old, max_drop=0.0, of="baseline")
    assert (found["state"], found["interval"]) == ("pass", pytest.approx([-14, -6]))
    assert verdict(old, min=0.77, confidence=0.95)["state"] == NOT_ENOUGH
    assert verdict(old, "macro_f1", min=0.1, confidence=0.95)["state"] == NOT_ENOUGH, "it has no interval"


def test_what_does_not_exist_is_refused_and_what_does_is_named():
    with pytest.raises(BadInput, match=r"evaluate\.gates\.exact_mach") as error:
        verdict(evidence(), "exact_mach", min=0.9)
    assert "exact_match_kept" in (error.value.hint or "")
    with pytest.raises(BadInput, match="has no baseline") as error:
        verdict(evidence(), min=0.9, of="baseline")
    assert "teacher" in (error.value.hint or "")
    with pytest.raises(BadInput, match="the teacher has no such figure"):
        verdict(evidence(), "same_text", min=0.9, of="teacher")
    with pytest.raises(BadInput, match="`max_drop` is for figures of quality"):
        verdict(evidence(), "latency_p95_ms", max_drop=0.1, of="teacher")


def test_no_gates_no_verdicts():
    assert judge_gates(evidence(), {}) == []
