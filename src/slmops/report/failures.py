"""Where a model fails: its worst classes, what it takes for what, and rows beside the other models' answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slmops.report.words import cut, full, in_order, prose
from slmops.tasks.base import Row, Task

MAX_CLASSES = 10
MAX_LABELS = 16
MAX_CONFUSED = 10
MAX_EXAMPLES = 5
_RIGHT, _SOFT = 1.0, 0.5


@dataclass(frozen=True)
class Given:
    """What one model answers: `score` is its figure for the row, `right` whether that is full marks."""

    role: str
    name: str
    text: str
    score: float
    right: bool


@dataclass(frozen=True)
class Example:
    id: str
    input: str
    wanted: str
    given: tuple[Given, ...]


@dataclass(frozen=True)
class Group:
    """Rows that tell one story, and how many of them there are in all."""

    title: str
    rows: int
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Heat:
    """A part of the confusion matrix; its last column may be `no answer`.

    Attributes:
        shades: the square root of a cell's share of its row's total, in 0..1, so that rare mistakes show too.
        whole: every class is in it.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    shades: tuple[tuple[float, ...], ...]
    whole: bool


def worst_classes(model: Mapping[str, Any], reference: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The classes with the lowest F1 of those that occur, with the reference model's F1 beside it."""
    theirs = {one["label"]: one["f1"] for one in (reference or {}).get("classes", ())}
    classes = sorted((one for one in model.get("classes", ()) if one["support"]), key=lambda one: one["f1"])
    return [{**one, "reference_f1": theirs.get(one["label"])} for one in classes[:MAX_CLASSES]]


def heat(confusion: Mapping[str, Any]) -> Heat:
    """The confusion matrix, or of many labels those that are most often confused."""
    labels, counts = confusion["labels"], confusion["counts"]
    columns = [*labels, "no answer"] if len(counts[0]) > len(labels) else list(labels)
    wrong = [sum(row) - row[i] + sum(r[i] for j, r in enumerate(counts) if j != i) for i, row in enumerate(counts)]
    kept = sorted(sorted(range(len(labels)), key=lambda i: -wrong[i])[:MAX_LABELS])
    shown = [*kept, *range(len(labels), len(columns))]
    return Heat(
        rows=tuple(labels[i] for i in kept),
        columns=tuple(columns[j] for j in shown),
        counts=tuple(tuple(counts[i][j] for j in shown) for i in kept),
        shades=tuple(tuple(math.sqrt(counts[i][j] / (sum(counts[i]) or 1)) for j in shown) for i in kept),
        whole=len(kept) == len(labels),
    )


def most_confused(confusion: Mapping[str, Any]) -> list[tuple[int, str, str]]:
    """Rows, wanted label and given label of the most frequent mistakes."""
    labels, counts = confusion["labels"], confusion["counts"]
    columns = [*labels, "no answer"]
    pairs = [(n, labels[i], columns[j]) for i, row in enumerate(counts) for j, n in enumerate(row) if i != j and n]
    return sorted(pairs, key=lambda pair: -pair[0])[:MAX_CONFUSED]


def side_by_side(
    task: Task,
    rows: Sequence[Row],
    texts: Mapping[str, Sequence[str]],
    *,
    figure: str,
    subject: str,
    reference: str | None,
    show: Callable[[Sequence[str]], Sequence[str]] = tuple,
) -> list[Group]:
    """Rows that `subject` gets wrong, grouped by whether `reference` gets them right.

    Args:
        texts: role to its answers, as many as there are rows and in their order.
        figure: the row figure that says how good an answer is; exact match where a row has no such figure.
        show: makes of the texts of one row those that a reader may see, before any is cut short.
    """
    scores = {
        role: [_score(task, row, text, figure) for row, text in zip(rows, of, strict=True)]
        for role, of in texts.items()
    }
    ours, theirs = scores[subject], scores.get(reference or "")

    def group(title: str, chosen: Sequence[int]) -> Group:
        examples = [
            _example(task, rows[i], {role: (of[i], scores[role][i]) for role, of in texts.items()}, show)
            for i in chosen[:MAX_EXAMPLES]
        ]
        return Group(title, len(chosen), tuple(examples))

    wrong = [i for i, score in enumerate(ours) if score < _RIGHT]
    if any(0 < score < _RIGHT for score in ours):
        return [group("Its lowest scores", sorted((i for i in wrong if ours[i] < _SOFT), key=lambda i: ours[i]))]
    if theirs is None:
        return [group("Rows it gets wrong", wrong)]
    name = prose(reference or "")
    return [
        group(f"Lost: {name} is right, {prose(subject)} is wrong", [i for i in wrong if theirs[i] == _RIGHT]),
        group("Hard: both are wrong", [i for i in wrong if theirs[i] < _RIGHT]),
        group(
            f"Gained: {prose(subject)} is right, {name} is wrong",
            [i for i, s in enumerate(ours) if s == _RIGHT > theirs[i]],
        ),
    ]


def _score(task: Task, row: Row, text: str, figure: str) -> float:
    judged = task.judge(row["output"], task.parse(text))
    return float(judged.get(figure, judged.get("exact_match", text == task.write(row["output"]))))


def _example(
    task: Task,
    row: Row,
    given: Mapping[str, tuple[str, float]],
    show: Callable[[Sequence[str]], Sequence[str]],
) -> Example:
    roles = in_order(given)
    texts = [str(row["id"]), row["input"], task.write(row["output"]), *(given[role][0] for role in roles)]
    id, asked, wanted, *said = show(texts)
    answers = (
        Given(role, full(role), cut(text), given[role][1], given[role][1] >= _RIGHT)
        for role, text in zip(roles, said, strict=True)
    )
    return Example(id, cut(asked), cut(wanted), tuple(answers))
