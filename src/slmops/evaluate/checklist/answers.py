"""Does it answer what it was made for?"""

from __future__ import annotations

import json
from typing import Any

from slmops.evaluate.checklist.line import Line, judged
from slmops.evaluate.checklist.served import Answer, Outcome
from slmops.evaluate.checklist.subject import Subject, crashes
from slmops.evaluate.significance import wilson
from slmops.tasks import ParseFailure

NAME = "answers in domain"
MIN_ANSWERED = 0.95
"""Share of in-domain queries that get an answer of the task's form."""


def answers_in_domain(subject: Subject, outcomes: list[Outcome]) -> Line:
    """Of in-domain queries: the share answered and, where the right answers are known, the share right.

    The share right is compared with the exact match that the bundle's evidence promises: it fails where their 95 %
    intervals do not meet.
    """
    if not subject.rows:
        return Line(NAME, "skipped", detail="no in-domain queries: give --rows")
    read = [
        subject.bundle.task.parse(outcome.text) if isinstance(outcome, Answer) else ParseFailure("no answer")
        for outcome in outcomes
    ]
    count = len(read)
    share = sum(not isinstance(answer, ParseFailure) for answer in read) / count
    figure, bound = f"{share:.1%} of {count} answered", f"at least {MIN_ANSWERED:.0%} answered"
    values: dict[str, Any] = {"rows": count, "answered": share}
    passes = share >= MIN_ANSWERED
    detail = "; ".join(sorted(set(crashes(outcomes)))[:2])
    right = _right(subject, read) if "output" in subject.rows[0] else None
    if right is not None:
        figure += f", {right / count:.1%} right"
        values["exact_match"] = right / count
        promised = _promised(subject)
        if promised is not None:
            low = promised[0]
            bound += f", right not below the evidence ({low:.1%})"
            values["promised_low"] = low
            passes = passes and wilson(right, count).high >= low
    return Line(NAME, judged(passes), figure, bound, detail, values)


def _right(subject: Subject, read: list[Any | ParseFailure]) -> int | None:
    """How many answers are the right one; None for a kind of task that has no one right answer."""
    judge = subject.bundle.task.judge
    judged_rows = [judge(row["output"], answer) for row, answer in zip(subject.rows, read, strict=True)]
    return sum(row["exact_match"] == 1 for row in judged_rows) if "exact_match" in judged_rows[0] else None


def _promised(subject: Subject) -> tuple[float, float] | None:
    """The 95 % interval of the exact match in the bundle's evidence; None where it has none."""
    path = subject.bundle.folder / subject.bundle.manifest.evidence
    evidence = json.loads(path.read_text(encoding="utf-8"))
    share = evidence.get("models", {}).get("shipped", {}).get("quality", {}).get("exact_match")
    rows = evidence.get("n_test")
    return None if share is None or not rows else wilson(round(share * rows), rows)
