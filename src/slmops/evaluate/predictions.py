"""One model's answers to the test rows, read and judged."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmops.data.read import read_jsonl
from slmops.errors import BadInput
from slmops.evaluate.calibration import ECE, confidences, gaps
from slmops.tasks.base import ParseFailure, Row, Task
from slmops.tasks.custom import CustomMetric
from slmops.tasks.figures import Array, Figure, perplexity

PERPLEXITY = Figure("perplexity", ("nll", "tokens"), perplexity, lower_is_better=True)
"""Of the reference answers, per token of the model's own vocabulary: comparable between models that share one."""


@dataclass(frozen=True)
class Scored:
    """One model's measured figures and, where it answered the rows, its answers judged one by one.

    Attributes:
        measured: what the probe found, by name.
        texts: what it wrote, per row.
        answers: what that stands for.
        judged: columns of each row.
        figures: what these columns are summed up to, the task's headline first.
        confidence: the probability it gave to each answer, shape [rows]; None where it tells none.
    """

    measured: Mapping[str, Any]
    texts: Sequence[str] = ()
    answers: Sequence[Any] = ()
    judged: Sequence[Mapping[str, float]] = ()
    figures: Sequence[Figure] = ()
    confidence: Array | None = None


def check_rows(task: Task, rows: Sequence[Row]) -> None:
    """Refuse test rows by which nothing can be judged.

    Raises:
        BadInput: there are none, or one has no reference answer or one that the task refuses.
    """
    if not rows:
        raise BadInput("there are no test rows, so nothing is known of any model", hint="give rows with answers")
    for row in rows:
        problem = task.check(row["output"]) if "output" in row else "it has no reference answer"
        if problem is not None:
            raise BadInput(
                f"test row {row['id']!r}: {problem}", hint="every test row needs an `output` that the task can judge"
            )


def read_scored(task: Task, rows: Sequence[Row], folder: Path, metrics: Sequence[CustomMetric] = ()) -> Scored:
    """What `Score` or `Floor` left in `folder`, judged against the references of `rows`.

    Raises:
        BadInput: the answers are not those to `rows`, or hold figures that do not fit them or the task.
    """
    measured = json.loads((folder / "probe.json").read_text(encoding="utf-8"))
    path = folder / "predictions.jsonl"
    if not path.exists():
        return Scored(measured)
    predictions = read_jsonl(path)
    _check_ids(predictions, rows, path)
    texts = [prediction["text"] for prediction in predictions]
    answers = [task.parse(text) for text in texts]
    judged = [
        {**task.judge(row["output"], answer), **_custom(row, answer, text, metrics)}
        for row, answer, text in zip(rows, answers, texts, strict=True)
    ]
    figures = [*task.figures(), *(metric.figure() for metric in metrics)]
    if _given(predictions, ("nll", "tokens"), path):
        figures.append(PERPLEXITY)
        for columns, prediction in zip(judged, predictions, strict=True):
            columns |= _likelihood(prediction, path)
    confidence = None
    if _given(predictions, ("probabilities",), path):
        figures.append(ECE)
        confidence, right = confidences(task, rows, predictions, answers, path)
        for columns, gap in zip(judged, gaps(confidence, right), strict=True):
            columns |= gap
    return Scored(measured, texts, answers, judged, figures, confidence)


def _check_ids(predictions: Sequence[Row], rows: Sequence[Row], path: Path) -> None:
    wrong = f"{path} does not answer the {len(rows)} test rows one by one, in their order"
    hint = "answer exactly these rows again; the ids must be those of the rows"
    if len(predictions) != len(rows):
        raise BadInput(f"{wrong}: it has {len(predictions)} answers", hint=hint)
    for number, (prediction, row) in enumerate(zip(predictions, rows, strict=True), 1):
        if prediction.get("id") != row["id"]:
            raise BadInput(f"{wrong}: answer {number} is to {prediction.get('id')!r}, not {row['id']!r}", hint=hint)
        if not isinstance(prediction.get("text"), str):
            raise BadInput(f"{path}: the answer to {row['id']!r} has no `text`", hint=hint)


def _custom(row: Row, answer: Any | ParseFailure, text: str, metrics: Sequence[CustomMetric]) -> Mapping[str, float]:
    return {metric.column: metric.judge(row["id"], row["output"], answer, text) for metric in metrics}


def _given(predictions: Sequence[Row], names: Sequence[str], path: Path) -> bool:
    """Whether the answers carry these columns; some with and some without would make a figure of other rows."""
    with_them = [prediction for prediction in predictions if any(name in prediction for name in names)]
    if not with_them:
        return False
    for prediction in predictions:
        if missing := [name for name in names if name not in prediction]:
            raise BadInput(
                f"{path}: the answer to {prediction['id']!r} has no `{missing[0]}`, and others have",
                hint="give it for every row or for none",
            )
    return True


def _likelihood(prediction: Row, path: Path) -> Mapping[str, float]:
    nll, tokens = prediction["nll"], prediction["tokens"]
    numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in (nll, tokens))
    if not numbers or nll < 0 or tokens < 1:
        raise BadInput(
            f"{path}: the answer to {prediction['id']!r} has nll {nll!r} and tokens {tokens!r}",
            hint="nll is the reference's negated log-likelihood in nats, tokens how many it has",
        )
    return {"nll": float(nll), "tokens": float(tokens)}
