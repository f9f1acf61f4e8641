"""Calibration by its definition, bin by bin, and the curve of what abstaining gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.errors import BadInput
from slmops.evaluate.calibration import BINS, ECE, calibration, confidences, gaps
from slmops.tasks import Classification, ParseFailure, QuestionAnswering, Task

ROWS = st.lists(st.tuples(st.floats(0, 1) | st.integers(0, BINS).map(lambda n: n / BINS), st.booleans()), min_size=1)


def by_definition(confidence: list[float], right: list[bool]) -> float:
    """Guo et al. (2017), equation 3, with the bins of its section 2: ((m-1)/M, m/M]."""
    error = 0.0
    for number in range(BINS):
        low, high = number / BINS, (number + 1) / BINS
        inside = [i for i, p in enumerate(confidence) if low < p <= high or (number == 0 and p == 0)]
        if inside:
            apart = np.mean([confidence[i] for i in inside]) - np.mean([right[i] for i in inside])
            error += len(inside) / len(confidence) * abs(float(apart))
    return error


@given(ROWS)
def test_the_error_is_that_of_its_definition(rows: list[tuple[float, bool]]) -> None:
    confidence, right = (list(column) for column in zip(*rows, strict=True))
    sure, hits = np.array(confidence), np.array(right, dtype=float)
    told = calibration(sure, hits)
    # Where a bound of a bin falls is a matter of the last bit; the definition is held to the other rows.
    if all(abs(p * BINS - round(p * BINS)) > 1e-9 or p in (0, 1) for p in confidence):
        assert told["ece"] == pytest.approx(by_definition(confidence, right))
    assert ECE.value(list(gaps(sure, hits))) == pytest.approx(told["ece"])
    assert sum(one["rows"] for one in told["bins"]) == len(rows)


def test_by_hand() -> None:
    told = calibration(np.array([0.95, 0.95, 0.95, 0.95, 0.5, 0.0]), np.array([1.0, 1, 1, 0, 1, 0]))
    assert told["ece"] == pytest.approx(4 / 6 * 0.2 + 1 / 6 * 0.5)
    assert [(one["rows"], one["accuracy"]) for one in told["bins"]] == [(1, 0), (1, 1), (4, 0.75)]
    assert told["abstention"] == [
        {"coverage": 4 / 6, "accuracy": 3 / 4, "threshold": 0.95},
        {"coverage": 5 / 6, "accuracy": 4 / 5, "threshold": 0.5},
        {"coverage": 1, "accuracy": 4 / 6, "threshold": 0},
    ]


def test_a_model_that_is_as_right_as_it_is_sure_has_no_error() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.3, 1, 200_000)
    assert calibration(confidence, (rng.random(200_000) < confidence).astype(float))["ece"] < 0.01


def test_the_curve_has_few_points_and_ends_with_all_rows() -> None:
    rng = np.random.default_rng(1)
    confidence, right = rng.random(3000), rng.integers(0, 2, 3000).astype(float)
    curve = calibration(confidence, right)["abstention"]
    assert len(curve) == 50
    assert [point["coverage"] for point in curve] == sorted({point["coverage"] for point in curve})
    assert (curve[-1]["coverage"], curve[-1]["accuracy"]) == (1, pytest.approx(right.mean()))
    for point in curve:
        kept = confidence >= point["threshold"]
        assert (point["coverage"], point["accuracy"]) == pytest.approx((kept.mean(), right[kept].mean()))


TASK = Classification(("a", "b"), None, 4)
FAILURE = ParseFailure("no label")


def of(task: Task, probabilities: Any, answer: Any = "a") -> tuple[Any, Any]:
    row = {"id": "r1", "output": "a"}
    prediction = {"id": "r1", "text": "", "probabilities": probabilities}
    return confidences(task, [row], [prediction], [answer], Path("predictions.jsonl"))


def test_confidence_is_that_of_the_answer_and_none_without_one() -> None:
    assert [float(column[0]) for column in of(TASK, {"a": 0.3, "b": 0.7}, "b")] == [0.7, 0]
    assert [float(column[0]) for column in of(TASK, {"a": 0.3, "b": 0.7}, "a")] == [0.3, 1]
    assert [float(column[0]) for column in of(TASK, {"a": 0.3, "b": 0.7}, FAILURE)] == [0, 0]


@pytest.mark.parametrize("given", [None, [], {}, {"a": 0.5}, {"a": 1.5, "b": -0.5}, {"a": "1"}])
def test_what_is_no_distribution_is_refused(given: Any) -> None:
    with pytest.raises(BadInput, match=r"the answer to 'r1' has `probabilities` that are none"):
        of(TASK, given)


def test_a_task_without_labels_has_no_calibration() -> None:
    with pytest.raises(BadInput, match="the reference of 'r1' has no label") as error:
        of(QuestionAnswering(None, 4), {"a": 1.0})
    assert "leave `probabilities` out" in (error.value.hint or "")
