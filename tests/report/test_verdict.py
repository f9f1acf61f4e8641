"""What the evidence means: the cases in which a lead must not be told to ship, and the reasons given."""

from __future__ import annotations

from typing import Any

import pytest

from slmops.report.pairs import difference
from slmops.report.verdict import judge, reference_of, resolution_points, subject_of


def gate(figure: str, state: str) -> dict[str, Any]:
    return {"figure": figure, "state": state, "message": f"{figure}: because"}


PASSING = gate("exact_match", "pass")


def shift(evidence: dict[str, Any], theirs: str, points: float, p: float, ours: str = "shipped") -> None:
    """Let one model stand `points` from another, with this corrected p."""
    for test in evidence["paired"]:
        if {test["ours"], test["theirs"]} == {ours, theirs}:
            sign = 1 if test["ours"] == ours else -1
            ends = sorted((sign * (points - 2), sign * (points + 2)))
            test |= {"points": sign * points, "interval": ends, "p_adjusted": p}


def test_all_gates_pass_and_the_floor_is_beaten(evidence):
    verdict = judge(evidence, [PASSING])
    assert (verdict.state, verdict.title) == ("ship", "Ship the quantised student")
    assert verdict.line() == "verdict: Ship the quantised student"


def test_a_gate_that_fails_is_named_and_several_are_counted(evidence):
    one = judge(evidence, [PASSING, gate("same_text", "fail")])
    assert (one.state, one.title) == ("hold", "Do not ship: same text misses its gate")
    assert one.reasons[0] == "Gate not passed: same text, because."
    two = judge(evidence, [gate("same_text", "fail"), gate("field_f1_kept", "fail")])
    assert (two.state, two.title) == ("hold", "Do not ship: 2 gates fail")


def test_too_little_evidence_is_no_pass(evidence):
    verdict = judge(evidence, [PASSING, gate("same_text", "not enough evidence")])
    assert (verdict.state, verdict.title) == ("unsure", "Not yet: too little evidence for same text")
    evidence["n_test"] = 29
    assert judge(evidence, [PASSING]).state == "unsure"


@pytest.mark.parametrize(
    ("points", "p", "title", "reason"),
    [
        (1.0, 0.3, "Do not ship: a trivial method does as well", "It is not shown to beat the trivial floor"),
        (-9.0, 0.001, "Do not ship: a trivial method does better", "It is worse than the trivial floor"),
    ],
)
def test_a_model_that_does_not_beat_the_floor_is_not_to_be_shipped(evidence, points, p, title, reason):
    shift(evidence, "floor", points, p)
    evidence["floor_beaten"] = False
    verdict = judge(evidence, [PASSING])
    assert (verdict.state, verdict.title) == ("hold", title)
    assert any(r.startswith(reason) and "nothing here needs a language model" in r for r in verdict.reasons)


def test_without_a_floor_that_is_said(evidence):
    del evidence["models"]["floor"]
    evidence["floor_beaten"] = None
    assert any("No trivial floor was measured" in reason for reason in judge(evidence, [PASSING]).reasons)


@pytest.mark.parametrize(
    ("points", "p", "said"),
    [(6.0, 0.01, "so the teacher's answers helped"), (0.5, 0.7, "so the teacher is not shown to have helped")],
)
def test_whether_the_teacher_helped_is_said(evidence, points, p, said):
    """By the models as they were trained: what rounding costs the one that ships is another matter."""
    shift(evidence, "baseline", points, p, ours="student")
    shift(evidence, "baseline", -20.0, 0.001)
    (reason,) = (reason for reason in judge(evidence, [PASSING]).reasons if said in reason)
    assert reason.startswith("Before quantising it ")


def test_without_gates_the_verdict_is_left_to_the_reader(evidence):
    assert judge(evidence, []).state == "open"


def test_of_freely_named_models_the_best_is_named_and_whether_that_is_sure(minimal):
    verdict = judge(minimal, [])
    assert (verdict.state, verdict.subject) == ("unsure", "gpt")
    assert verdict.title == "gpt is best measured, but not shown to be better than ours-v2"
    minimal["paired"][0] |= {"p_adjusted": 0.001}
    assert judge(minimal, []).title == "gpt is best on exact match"


def test_a_lower_perplexity_is_the_better_one(minimal):
    for name, value in (("ours-v2", 7.0), ("gpt", 9.0)):
        minimal["models"][name] = {"quality": {"perplexity": value}, "interval": {"perplexity": [value, value]}}
    minimal["headline"] = "perplexity"
    minimal["paired"] = [minimal["paired"][0] | {"figure": "perplexity", "points": -200.0, "p_adjusted": 0.001}]
    assert subject_of(minimal) == "ours-v2"
    assert difference(minimal, "ours-v2", "gpt", "perplexity").reading == "better"
    assert judge(minimal, []).title == "ours-v2 is best on perplexity"


def test_a_test_reads_the_same_from_both_sides(evidence):
    one = difference(evidence, "shipped", "floor", "exact_match")
    other = difference(evidence, "floor", "shipped", "exact_match")
    assert (one.points, one.low, one.high) == (-other.points, -other.high, -other.low)
    assert (one.reading, other.reading) == ("better", "worse")
    assert difference(evidence, "shipped", "nobody", "exact_match") is None


def test_the_reference_is_the_teacher_else_the_first_model_given(evidence, minimal):
    assert reference_of(evidence, "shipped") == "teacher"
    assert reference_of(minimal, "gpt") == "ours-v2"


def test_what_the_rows_can_show_follows_from_the_rows_that_one_point_takes(evidence):
    evidence |= {"n_test": 400, "rows_for_one_point": 1600}
    assert resolution_points(evidence) == 2.0
    assert resolution_points(evidence | {"rows_for_one_point": None}) is None


def test_what_costs_more_is_not_called_a_saving(evidence):
    evidence["savings"] = {"time_saving_torch": -0.25, "weights_saving": 0.5}
    (said,) = (r for r in judge(evidence, [PASSING]).reasons if r.startswith("Against the teacher"))
    assert said.replace("\u00a0", " ") == "Against the teacher it takes 25 % more time and 50 % less weights."


def test_parity_that_holds_is_no_gate_that_anybody_set(evidence, story):
    assert judge(evidence, [], story.parity) == judge(evidence, [])
    assert judge(evidence, [], story.parity).title == "Your call: no gate was set"
