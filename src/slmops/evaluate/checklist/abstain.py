"""Does it keep still about what it was not made for?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from slmops.evaluate.checklist.line import Line, judged
from slmops.evaluate.checklist.served import Answer, Outcome
from slmops.evaluate.checklist.subject import Subject, crashes
from slmops.evaluate.checklist.texts import OUT_OF_DOMAIN
from slmops.tasks import Classification, Extraction, ParseFailure, Task

NAME = "abstains out of domain"
MAX_ANSWERED = 0.25
"""Share of out-of-domain texts that may be answered with confidence where a label says "none of these"."""

MAX_ANSWERED_WITHOUT = 0.5
"""The same where the model can show its doubt by low probabilities alone."""

COVERAGE = 0.9
"""Share of in-domain queries that must stay above the confidence from which an answer counts as sure."""

SURE = 0.9
"""That confidence where there are too few in-domain queries to set it."""

_MIN_ROWS = 20
_NONE_OF_THESE = frozenset(
    (
        *("other", "others", "none", "noneoftheabove", "noneofthese", "na", "notapplicable", "nointent"),
        *("unknown", "unclear", "misc", "miscellaneous", "irrelevant", "unrelated", "fallback"),
        *("outofscope", "outofdomain", "oos", "ood"),
    )
)


def abstains(subject: Subject, known: Sequence[Outcome]) -> Line:
    """Of texts about anything but the task: the share that is answered as if they were its business.

    A text counts as answered when the answer has the task's form, is not a label for "none of these", and is given
    with confidence; or when it holds a value that the text does not.

    Args:
        known: answers to in-domain queries, which set what confident means.
    """
    task = subject.bundle.task
    if not isinstance(task, Classification | Extraction):
        return Line(NAME, "skipped", detail="no text is out of the domain of this kind of task")
    outcomes = subject.greedy("out of domain", OUT_OF_DOMAIN, "out of domain")
    sure = _sure(known)
    kinds = [_kind(task, text, outcome, sure) for text, outcome in zip(OUT_OF_DOMAIN, outcomes, strict=True)]
    counts = Counter(kinds)
    answered = counts["answered"] + counts["invented"]
    share = answered / len(kinds)
    most = MAX_ANSWERED if none_of_these(task) else MAX_ANSWERED_WITHOUT
    worst = [text for text, kind in zip(OUT_OF_DOMAIN, kinds, strict=True) if kind in ("invented", "answered")]
    detail = f"sure from a confidence of {sure:.2f}" + (
        "" if none_of_these(task) else "; no label says `none of these`"
    )
    detail += "; " + "; ".join([*sorted(set(crashes(outcomes)))[:1], *(f"answered: {text!r}" for text in worst[:2])])
    return Line(
        NAME,
        judged(share <= most and not crashes(outcomes)),
        f"{share:.1%} of {len(kinds)} answered ({counts['invented']} inventing)",
        f"at most {most:.0%}",
        detail.rstrip("; "),
        {"texts": len(kinds), "answered": share, "sure_from": sure, **counts},
    )


def none_of_these(task: Task) -> set[str]:
    """The task's labels that say that a text is none of its business."""
    labels: Sequence[Any] = ()
    if isinstance(task, Classification):
        labels = task.labels
    elif isinstance(task, Extraction) and task.label_property is not None:
        labels = task.schema["properties"][task.label_property].get("enum", ())
    return {label for label in labels if isinstance(label, str) and _bare(label) in _NONE_OF_THESE}


def _sure(known: Sequence[Outcome]) -> float:
    """The confidence that `COVERAGE` of the in-domain answers reach."""
    import numpy as np

    confidences = [outcome.confidence for outcome in known if isinstance(outcome, Answer)]
    return float(np.quantile(confidences, 1 - COVERAGE)) if len(confidences) >= _MIN_ROWS else SURE


def _kind(task: Classification | Extraction, text: str, outcome: Outcome, sure: float) -> str:
    """`refused`, `no answer`, `abstained`, `unsure`, or what counts against the model: `answered` and `invented`."""
    if not isinstance(outcome, Answer):
        return "refused"
    answer = task.parse(outcome.text)
    if isinstance(answer, ParseFailure):
        return "no answer"
    if isinstance(task, Extraction) and _invented(task, answer, text):
        return "invented"
    if task.label(answer) in none_of_these(task):
        return "abstained"
    return "answered" if outcome.confidence >= sure else "unsure"


def _invented(task: Extraction, answer: dict[str, Any], text: str) -> bool:
    """Whether a field that is read out of a text holds what the text does not."""
    free = (name for name in task.fields if "enum" not in task.schema["properties"][name])
    values = (answer[name] for name in free if isinstance(answer.get(name), str | int | float))
    plain = " ".join(text.casefold().split())
    return any(not isinstance(value, bool) and " ".join(str(value).casefold().split()) not in plain for value in values)


def _bare(label: str) -> str:
    return "".join(char for char in label.casefold() if char.isalnum())
