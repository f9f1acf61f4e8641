"""Rows as examples for a student that labels: answers as marks on their own messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from slmops.engines.reading import Reader, marking_of
from slmops.errors import BadInput
from slmops.models.tag_head import TagHead
from slmops.models.tokenizer import Tokenizer
from slmops.tasks.base import Row, Task
from slmops.train.examples import Example

MAX_LOST = 0.2
"""Share of labelled rows that may hold a value which their text does not: beyond it, marking is the wrong head."""


def tagged_examples(
    answered: Iterable[tuple[str, str, Any]], task: Task, tokenizer: Tokenizer
) -> tuple[list[Example], list[str]]:
    """Names, texts and answers as examples with labels, and the names of those that became one.

    An answer that names something its text does not hold cannot be marked, and is left out: as it stands it is wrong
    or was not copied, and the labels without it would say that nothing is there.
    """
    reader = Reader(task.describe(), tokenizer)
    examples, names = [], []
    for name, text, answer in answered:
        reading = reader.reading(tokenizer.prompt(task.render(text)))
        marks = reader.marking.mark(reading.message, answer)
        if not marks.lost:
            examples.append(Example(reading.prompt, reading.again, labels=reader.labels(reading, marks)))
            names.append(name)
    return examples, names


def new_head(task: Task, tokenizer: Tokenizer, width: int) -> TagHead:
    """The head of a student with hidden states of that width, all labels of a group alike at first."""
    described = task.describe()
    return TagHead(width, Reader(described, tokenizer).marking.sizes, described)


def check_rows(rows: Sequence[Row], task: Task) -> int:
    """How many labelled rows cannot be marked.

    Raises:
        BadInput: more than `MAX_LOST` of them, the task is no extraction, or a property of its schema cannot be marked.
    """
    marking = marking_of(task.describe())
    lost = [row["id"] for row in rows if marking.mark(row["input"], row["output"]).lost]
    if len(lost) > MAX_LOST * len(rows):
        raise BadInput(
            f"{len(lost)} of {len(rows)} labelled rows have a value that does not stand in their text as it is "
            f"written (row {lost[0]}), so a student that labels could not learn them",
            hint="write values as the texts have them, give the field an `enum`, or set student.head: language",
        )
    return len(lost)
