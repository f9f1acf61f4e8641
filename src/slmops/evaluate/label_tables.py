"""Where a model goes wrong, class by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slmops.tasks.base import ParseFailure, Row, Task

NO_ANSWER = "no answer"
"""The column of answers that are no label, or have none."""


def labels_of(task: Task, rows: Sequence[Row], answers: Sequence[Sequence[Any]]) -> list[str]:
    """The labels that occur in the references or in any model's answers, sorted; none where the task has none."""
    wanted = {task.label(row["output"]) for row in rows}
    if wanted == {None}:
        return []
    given = {_given(task, answer) for model in answers for answer in model}
    return sorted(label for label in wanted | given if label is not None)


def label_tables(task: Task, rows: Sequence[Row], answers: Sequence[Any], labels: Sequence[str]) -> Mapping[str, Any]:
    """`classes` with support, precision, recall and F1, and the `confusion` matrix, plain JSON.

    Rows of the matrix are the labels wanted, columns those given and, last, `NO_ANSWER`. A reference without a label
    counts in neither. Precision of a label that is never given is 0, as is recall of one that is never wanted.
    """
    place = {label: number for number, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels) + 1), dtype=int)
    for row, answer in zip(rows, answers, strict=True):
        wanted, given = task.label(row["output"]), _given(task, answer)
        if wanted is not None:
            counts[place[wanted], len(labels) if given is None else place[given]] += 1
    return {
        "classes": [_class(label, counts, number) for label, number in place.items()],
        "confusion": {"labels": list(labels), "counts": counts.tolist()},
    }


def _class(label: str, counts: Any, number: int) -> Mapping[str, Any]:
    hits, support, given = counts[number, number], counts[number].sum(), counts[:, number].sum()
    return {
        "label": label,
        "support": int(support),
        "precision": float(hits / max(given, 1)),
        "recall": float(hits / max(support, 1)),
        "f1": float(2 * hits / max(support + given, 1)),
    }


def _given(task: Task, answer: Any | ParseFailure) -> str | None:
    return None if isinstance(answer, ParseFailure) else task.label(answer)
