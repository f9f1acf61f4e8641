"""Which answers are not learned from, though they have the form of the task, and why."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from slmops.data.alike import Alike
from slmops.recipe.curating import Curate
from slmops.tasks import Classification, Extraction, ParseFailure, Row, Task
from slmops.teach.combine import shares
from slmops.teach.language import Languages

NO_ANSWER = "no answer"
UNPARSEABLE = "unparseable"
INVALID = "invalid"
INCONSISTENT = "inconsistent"
LENGTH = "length outlier"
LANGUAGE = "language outlier"
IMBALANCE = "class imbalance"
NOT_JUDGED = "not judged"

_ENOUGH = 20
"""Answers below which nothing is out of the ordinary."""


class Text(Protocol):
    """What of an answer is looked at."""

    @property
    def id(self) -> str: ...

    @property
    def text(self) -> str: ...


class Finding(NamedTuple):
    """What is wrong with an answer; `like` is the place of the one that it is too much like."""

    detail: str
    like: int | None = None
    similarity: float | None = None


Found = Mapping[int, Finding]
"""By the place of the answer."""


def is_free_text(task: Task) -> bool:
    """Whether answers are texts of any content: then length, language and likeness say something about them."""
    return not isinstance(task, Classification | Extraction)


def unformed(text: str, task: Task) -> str:
    """The reason by which an answer that a teacher stage dropped is counted."""
    if not text.strip():
        return NO_ANSWER
    parsed = task.parse(text)
    if not isinstance(parsed, ParseFailure):
        return NO_ANSWER  # It has the form, so it was the endpoint that stopped it.
    closed = isinstance(task, Classification)
    return INVALID if parsed.readable or closed else UNPARSEABLE


def agreements(
    answers: Sequence[Text], given: Sequence[Mapping[str, str]], weights: Sequence[float], task: Task
) -> list[float]:
    """Of each answer the share of the voters' weight that stands behind it: Σ_t λ_t [y_t = y], the self-consistency of
    Wang et al. 2023 with teachers, and the draws of each, for samples. A voter without an answer stands behind none.

    Args:
        given: the texts of each voter, by row.
    """
    found = []
    for answer in answers:
        wanted = task.parse(answer.text)
        said = [task.parse(texts[answer.id]) if answer.id in texts else None for texts in given]
        found.append(math.fsum(share for share, one in zip(shares(weights), said, strict=True) if one == wanted))
    return found


def inconsistent(agreement: Sequence[float], least: float) -> Found:
    """Answers that too few teachers gave."""
    return {
        place: Finding(f"{share:.0%} of the teachers' weight stands behind it, less than {least:.0%}")
        for place, share in enumerate(agreement)
        if share < least - 1e-9
    }


def odd_lengths(answers: Sequence[Text], spread: float) -> Found:
    """Answers far shorter or longer than the others: the logarithm of their characters is outside of Tukey's fences,
    q1 - k (q3 - q1) and q3 + k (q3 - q1) (Tukey 1977, section 2D; k is `spread`, and beyond 3 he calls it far out).

    Where half of all are equally long there is no spread, and nothing is found.
    """
    if len(answers) < _ENOUGH:
        return {}
    logs = np.log([max(1, len(answer.text.strip())) for answer in answers])
    first, third = np.quantile(logs, [0.25, 0.75])
    if third == first:
        return {}
    low, high = first - spread * (third - first), third + spread * (third - first)
    told = f"of {len(answers)} answers half have {math.exp(first):.0f} to {math.exp(third):.0f} characters"
    return {
        place: Finding(f"{len(answer.text.strip())} characters: {told}")
        for place, answer in enumerate(answers)
        if not low <= logs[place] <= high
    }


def foreign(answers: Sequence[Text], references: Sequence[str], settings: Curate) -> Found:
    """Answers that are certainly in a language in which no reference answer is."""
    if settings.language is None:
        return {}
    languages = Languages(settings.language, settings.language_letters)
    known = languages.known(references)
    told = ((place, languages.of(answer.text)) for place, answer in enumerate(answers if known else ()))
    return {
        place: Finding(
            f"in {one[0]} ({one[1]:.1%} certain), and the reference answers are in {', '.join(sorted(known))}"
        )
        for place, one in told
        if one and one[0] not in known
    }


def repeated(answers: Sequence[Text], threshold: float) -> Found:
    """Answers that say what another one says, which stays."""
    found = Alike([answer.text for answer in answers]).twins(range(len(answers)), threshold)
    return {
        place: Finding(f"like another answer: {match.similarity:.0%} of their shingles are the same", *match)
        for place, match in found.items()
    }


def classes(answers: Sequence[Text], train: Sequence[Row], task: Task) -> tuple[Counter[str], list[str | None]]:
    """The rows of each class that the student learns from, and the class of each answer."""
    labels = [task.label(task.parse(answer.text)) for answer in answers]
    counted = Counter(label for label in labels if label is not None)
    counted.update(label for row in train if (label := task.label(row["output"])) is not None)
    return counted, labels


def imbalance(counted: Mapping[str, int]) -> float | None:
    """Rows of the largest class for each of the smallest; None where there are not two."""
    return max(counted.values()) / min(counted.values()) if len(counted) > 1 else None


def too_many(answers: Sequence[Text], train: Sequence[Row], task: Task, most: float, seed: int) -> Found:
    """Answers by which a class has more than `most` times the rows of the smallest, with the labelled rows counted.

    Which go is drawn by a digest of seed and id, so it does not depend on the order. Labelled rows all stay.
    """
    counted, labels = classes(answers, train, task)
    if len(counted) < 2:
        return {}
    allowed = math.floor(most * min(counted.values()))
    drawn = sorted(range(len(answers)), key=lambda place: _drawn(seed, answers[place].id))
    found, left = {}, Counter(counted)
    for place in drawn:
        label = labels[place]
        if label is not None and left[label] > allowed:
            left[label] -= 1
            told = f"{label} has {counted[label]} rows, more than {most:g} times those of the smallest class"
            found[place] = Finding(told)
    return found


def _drawn(seed: int, id: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{id}".encode(), digest_size=8).digest()
