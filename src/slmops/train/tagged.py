"""Rows as examples for a student that labels: answers as marks on their own messages."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from slmops.engines.reading import Reader, as_fields, marking_of
from slmops.errors import BadInput
from slmops.models.tag_head import TagHead
from slmops.models.tokenizer import Tokenizer
from slmops.tasks.base import Row, Task
from slmops.tasks.marking import LABEL, OUTSIDE
from slmops.train.examples import Example

UNMARKED = 0.1
"""What a token counts that a teacher leaves unmarked: it overlooks more than it makes up (docs/adr/0011)."""

MAX_LOST = 0.2
"""Share of labelled rows that may hold a value which their text does not: beyond it, marking is the wrong head."""


class Answered(NamedTuple):
    """A text with its answer.

    Attributes:
        name: of its row, for messages.
        sure: of a teacher's answer, how sure it was of each field that it wrote; None where the answer is a reference.
    """

    name: str
    text: str
    answer: Any
    sure: Mapping[str, float] | None = None


def tagged_examples(answered: Iterable[Answered], task: Task, tokenizer: Tokenizer) -> tuple[list[Example], list[str]]:
    """Texts and answers as examples with labels, and the names of those that became one.

    A reference that names something its text does not hold cannot be marked, and is left out: the labels without it
    would say that nothing is there. Of a teacher's answer the rest is learned. What a teacher marks counts as much as
    it was sure of it, and what it leaves unmarked counts `UNMARKED`. Where the answer is a label, only that counts.
    """
    reader = Reader(task.describe(), tokenizer)
    examples, names = [], []
    for name, text, answer, sure in answered:
        reading = reader.reading(tokenizer.prompt(task.render(text)))
        marks = reader.marking.mark(reading.message, as_fields(answer))
        if marks.lost and sure is None:
            continue
        labels = reader.labels(reading, marks)
        certainty = None if sure is None else _certainty(reader, labels, sure, marks.lost)
        if reader.choices is not None:
            certainty = (*[0.0] * len(reading.places), 1.0 if sure is None else sure.get(LABEL, 1.0))
        examples.append(Example(reading.prompt, reading.again, labels=labels, certainty=certainty))
        names.append(name)
    return examples, names


def _certainty(
    reader: Reader, labels: Sequence[int], sure: Mapping[str, float], lost: Collection[str]
) -> tuple[float, ...]:
    """How much each label of a teacher's answer counts."""
    marking, ends = reader.marking, len(reader.marking.options)
    copied = list(marking.copied)
    tokens = [
        UNMARKED if label == OUTSIDE else sure.get(copied[(label - 1) // 2], 1.0) for label in labels[: -ends or None]
    ]
    chosen = []
    for field, label in zip(marking.options, labels[len(tokens) :], strict=True):
        absent = marking.options[field][label - marking.first_option(field)] is None
        chosen.append(0.0 if field in lost else UNMARKED if absent else sure.get(field, 1.0))
    return (*tokens, *chosen)


def new_head(task: Task, tokenizer: Tokenizer, width: int) -> TagHead:
    """The head of a student with hidden states of that width, all labels of a group alike at first."""
    described = task.describe()
    return TagHead(width, Reader(described, tokenizer).marking.sizes, described)


def check_rows(rows: Sequence[Row], task: Task) -> int:
    """How many labelled rows cannot be marked.

    Raises:
        BadInput: more than `MAX_LOST` of them, the task is open, or a property of its schema cannot be marked.
    """
    marking = marking_of(task.describe())
    lost = [row["id"] for row in rows if marking.mark(row["input"], as_fields(row["output"])).lost]
    if len(lost) > MAX_LOST * len(rows):
        raise BadInput(
            f"{len(lost)} of {len(rows)} labelled rows have a value that does not stand in their text as it is "
            f"written (row {lost[0]}), so a student that labels could not learn them",
            hint="write values as the texts have them, give the field an `enum`, or set student.head: language",
        )
    return len(lost)
