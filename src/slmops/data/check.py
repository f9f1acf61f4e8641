"""What must hold of a whole set of rows before anything is trained on it."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from slmops.data.dropped import CONTAMINATED, EXACT_DUPLICATE, POOL, TRAIN, dropped_row
from slmops.data.formats import Placed
from slmops.errors import BadInput
from slmops.recipe.task import ClassificationTask, TaskSettings
from slmops.tasks import Classification, ParseFailure, Row, Task, make_task

_SHOWN = 10


def task_for(settings: TaskSettings, schema: dict[str, Any] | None, train: Sequence[Placed]) -> Task:
    """The task; a classification without labels takes those of the training rows.

    Raises:
        BadInput: see `make_task`; or a label is no text.
    """
    if isinstance(settings, ClassificationTask) and settings.labels is None:
        for place, row in train:
            if not isinstance(row["output"], str):
                raise BadInput(f"{place}: the label is {row['output']!r}; it must be a text")
        labels = sorted({row["output"].strip() for _, row in train})
        if len(labels) == 1:
            raise BadInput(_one_class(labels[0]), hint=_ONE_CLASS_HINT)
        settings = settings.model_copy(update={"labels": labels})
    return make_task(settings, schema)


def answered(rows: Iterable[Placed], task: Task) -> list[Row]:
    """The rows with answers as the task wants them; an answer given as text is read as a model's would be.

    Raises:
        BadInput: lists the answers that the task refuses, with their places.
    """
    good, refused = [], []
    for place, row in rows:
        answer = row["output"]
        if isinstance(answer, str):
            answer = task.parse(answer)
        problem = answer.reason if isinstance(answer, ParseFailure) else task.check(answer)
        if problem is None:
            good.append({**row, "output": answer})
        else:
            refused.append(f"{place}: {problem}")
    if refused:
        more = [f"and {len(refused) - _SHOWN} more"] if len(refused) > _SHOWN else []
        lines = "\n".join([*refused[:_SHOWN], *more])
        raise BadInput(f"answers that the task refuses:\n{lines}", hint="correct these rows, or the task's schema")
    return good


def check_labels(train: Sequence[Row], test: Sequence[Row], task: Task) -> None:
    """Refuse labels that nothing can be learned or judged by.

    Raises:
        BadInput: no training rows, all of one label, or labels in test that training never saw.
    """
    if not train:
        raise BadInput(
            "no training row is left", hint="every one of them is a test row too, or like one; see data.screen"
        )
    seen = Counter(task.label(row["output"]) for row in train)
    if unseen := Counter(task.label(row["output"]) for row in test).keys() - seen.keys():
        names = ", ".join(sorted(map(str, unseen)))
        raise BadInput(
            f"labels in test that training never saw: {names}",
            hint="add training rows with these labels, or take the test rows out",
        )
    if len(seen) == 1 and (label := next(iter(seen))) is not None:
        raise BadInput(_one_class(label), hint=_ONE_CLASS_HINT)
    check_classes(test, task)


def check_classes(test: Sequence[Row], task: Task) -> None:
    """Refuse test rows that a model which always gives one label would answer without a fault.

    Raises:
        BadInput: the task is to give a label, and all rows have the same.
    """
    labels = {row["output"] for row in test} if isinstance(task, Classification) else set()
    if len(labels) == 1 and len(test) > 1:
        raise BadInput(
            f"every test row has the label {next(iter(labels))!r}: a model that knows no other would be right always",
            hint="add test rows with other labels",
        )


class Screen:
    """Keeps out rows whose text was there before: what stood in test must not be trained on.

    Texts are the same when they differ in case, spaces and Unicode form alone.
    """

    def __init__(self, stage: str = "data") -> None:
        self._stage = stage
        self._first: dict[str, tuple[str, str | None]] = {}
        self.dropped: list[Row] = []

    def remember(self, rows: Iterable[Row], side: str) -> None:
        """Take the rows of `side` as they are."""
        for row in rows:
            self._first.setdefault(text_digest(row["input"]), (side, row["id"]))

    def remember_digests(self, digests: Iterable[str], side: str) -> None:
        """Take the texts with these digests as those of `side`."""
        for digest in digests:
            self._first.setdefault(digest, (side, None))

    def sift(self, rows: Iterable[Row], side: str) -> Iterator[Row]:
        """The rows of `side` whose text is new; the others are noted in `dropped` with the reason."""
        for row in rows:
            first, like = self._first.setdefault(digest := text_digest(row["input"]), ("", None))
            if not first:
                self._first[digest] = side, row["id"]
                yield row
            else:
                reason = EXACT_DUPLICATE if first in (side, TRAIN, POOL) else CONTAMINATED
                detail = "repeats an earlier row" if first == side else f"also in {first}"
                self.dropped.append(
                    dropped_row(row, side, reason, detail, like=like, similarity=1.0, stage=self._stage)
                )


_ONE_CLASS_HINT = "a model that always gives one answer needs no training; add rows with other labels"


def _one_class(label: str) -> str:
    return f"every training row has the label {label!r}"


def text_digest(text: str) -> str:
    """Hex digest of a text; the same for texts that differ in case, spaces and Unicode form alone."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return hashlib.blake2b(folded.encode(), digest_size=16).hexdigest()
