"""The data card: what the student learns from, in figures, reasons and examples."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slmops.tasks import Row, Task
from slmops.teach.answers import Answer
from slmops.teach.curate import classes, imbalance

EXAMPLES = 3
SAMPLES = 5
_CHARACTERS = 240


def data_card(
    answers: Sequence[Answer],
    dropped: Sequence[Row],
    rows: Mapping[str, int],
    train: Sequence[Row],
    task: Task,
    *,
    agreement: Sequence[float] | None,
    cost: Mapping[str, Any] | None,
    seed: int,
) -> dict[str, Any]:
    """The card as plain JSON.

    Args:
        answers: that are learned from.
        dropped: all rows that are not, of every stage.
        rows: of each side as `data` left them.
        agreement: of each answer, where several teachers gave it.
        cost: what an endpoint took for the answers: `requests`, `tokens`, and `usd`, null where no price is known.
    """
    counted, labels = classes(answers, train, task)
    taught = Counter(label for label in labels if label is not None)
    lengths = [len(answer.text) for answer in answers]
    return {
        "rows": {**rows, "learned": len(answers)},
        "labels": {
            label: {"train": count - taught[label], "answers": taught[label]} for label, count in counted.items()
        },
        "imbalance": imbalance(counted),
        "agreement": None if agreement is None else _agreement(agreement),
        "cost": {"answer_tokens": sum(len(answer.tokens) for answer in answers), **(cost or {})},
        "characters": {name: float(np.quantile(lengths, q)) for name, q in (("p5", 0.05), ("p50", 0.5), ("p95", 0.95))},
        "dropped": _reasons(dropped, seed),
        "samples": [
            {"id": answer.id, "input": _cut(answer.input), "text": _cut(answer.text)}
            for answer in _drawn([{"id": answer.id, "answer": answer} for answer in answers], SAMPLES, seed, "answer")
        ],
    }


def _agreement(of_each: Sequence[float]) -> dict[str, float]:
    return {
        "mean": float(np.mean(of_each)),
        "unanimous": float(np.mean([share > 1 - 1e-9 for share in of_each])),
    }


def _reasons(dropped: Sequence[Row], seed: int) -> list[dict[str, Any]]:
    """The most frequent reason first, each with a few rows that were dropped for it."""
    groups: defaultdict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in dropped:
        groups[row["stage"], row["side"], row["reason"]].append(row)
    return [
        {
            "stage": stage,
            "side": side,
            "reason": reason,
            "rows": len(found),
            "examples": [_example(row) for row in _drawn(found, EXAMPLES, seed)],
        }
        for (stage, side, reason), found in sorted(groups.items(), key=lambda group: -len(group[1]))
    ]


def _example(row: Row) -> dict[str, Any]:
    told = {name: row.get(name) for name in ("id", "input", "text", "detail", "like")}
    return {name: None if value is None else _cut(str(value)) for name, value in told.items()}


def _drawn(rows: Sequence[Row], most: int, seed: int, member: str | None = None) -> list[Any]:
    """A few of the rows, the same ones in whatever order they come."""
    chosen = sorted(rows, key=lambda row: hashlib.blake2b(f"{seed}:{row['id']}".encode(), digest_size=8).digest())
    return [row if member is None else row[member] for row in chosen[:most]]


def _cut(text: str) -> str:
    return text if len(text) <= _CHARACTERS else text[: _CHARACTERS - 1] + "…"
