"""Does a model know how sure it may be? Calibration error, reliability bins, and what abstaining would give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slmops.errors import BadInput
from slmops.tasks.base import ParseFailure, Row, Task
from slmops.tasks.figures import Array, Figure

BINS = 15
MOST_POINTS = 50
_COLUMNS = tuple(f"gap:{number}" for number in range(BINS))


def _expected_error(means: Array) -> Array:
    error: Array = np.abs(means).sum(axis=1)
    return error


ECE = Figure("ece", _COLUMNS, _expected_error, lower_is_better=True)
"""Expected calibration error: how far confidence and accuracy are apart, in 15 bins of equal width, weighted by rows.

Source: Guo et al. (2017), "On Calibration of Modern Neural Networks", ICML, equation 3.
"""


def confidences(
    task: Task, rows: Sequence[Row], predictions: Sequence[Row], answers: Sequence[Any], path: Path
) -> tuple[Array, Array]:
    """The probability that each answer was given, and whether its label is the right one (1) or not (0).

    An answer that is no label has the confidence 0: the model abstained.

    Args:
        predictions: with `probabilities`, label to probability.
        path: of the predictions, for messages.

    Raises:
        BadInput: the task has no labels, or these are no probabilities of labels.
    """
    confidence, right = np.zeros(len(rows)), np.zeros(len(rows))
    for place, (row, prediction, answer) in enumerate(zip(rows, predictions, answers, strict=True)):
        wanted = task.label(row["output"])
        if wanted is None:
            raise BadInput(
                f"{path}: probabilities are given, and the reference of {row['id']!r} has no label",
                hint="leave `probabilities` out for a task without labels",
            )
        given = None if isinstance(answer, ParseFailure) else task.label(answer)
        probabilities = _checked(prediction, path)
        confidence[place] = 0.0 if given is None else probabilities.get(given, 0.0)
        right[place] = float(given == wanted)
    return confidence, right


def gaps(confidence: Array, right: Array) -> Iterator[Mapping[str, float]]:
    """The column of each row: by how much confidence exceeds what came true, in the bin of the confidence."""
    for number, gap in zip(_bin(confidence), confidence - right, strict=True):
        yield {_COLUMNS[number]: float(gap)}


def calibration(confidence: Array, right: Array) -> dict[str, Any]:
    """`ece`, the reliability `bins` that hold rows, and the `abstention` curve, plain JSON.

    A point of the curve: answer only where confidence is at least `threshold`; that is a share `coverage` of the rows,
    and of those the share `accuracy` is right. Coverage rises, and ends at 1.
    """
    numbers = _bin(confidence)
    bins = [
        {
            "low": number / BINS,
            "high": (number + 1) / BINS,
            "rows": int((numbers == number).sum()),
            "confidence": float(confidence[numbers == number].mean()),
            "accuracy": float(right[numbers == number].mean()),
        }
        for number in np.unique(numbers).tolist()
    ]
    error = sum(one["rows"] * abs(one["confidence"] - one["accuracy"]) for one in bins) / len(confidence)
    return {"ece": error, "bins": bins, "abstention": _abstention(confidence, right)}


def _abstention(confidence: Array, right: Array) -> list[dict[str, float]]:
    surest = np.argsort(-confidence, kind="stable")
    sure, hits = confidence[surest], np.cumsum(right[surest])
    # Rows that are equally sure are answered together or not at all.
    ends = np.flatnonzero(np.append(sure[1:] != sure[:-1], True))
    chosen = ends[np.unique(np.linspace(0, len(ends) - 1, min(len(ends), MOST_POINTS)).round().astype(int))]
    return [
        {
            "coverage": float((end + 1) / len(sure)),
            "accuracy": float(hits[end] / (end + 1)),
            "threshold": float(sure[end]),
        }
        for end in chosen
    ]


def _bin(confidence: Array) -> Any:
    """The bin of each confidence: the bounds of (0, 1/15], (1/15, 2/15] … belong to the bin below; 0 to the first."""
    return np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)


def _checked(prediction: Row, path: Path) -> Mapping[str, float]:
    given = prediction["probabilities"]
    numbers = isinstance(given, dict) and all(isinstance(p, int | float) and 0 <= p <= 1 for p in given.values())
    if not numbers or not 0.99 <= sum(given.values()) <= 1.01:
        raise BadInput(
            f"{path}: the answer to {prediction['id']!r} has `probabilities` that are none",
            hint="give each label its share of 1",
        )
    return dict(given)
