"""What a student is trained on: its teacher's answers and the labelled rows, with what the terms need of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slmops.models.tokenizer import Tokenizer
from slmops.recipe.objective import Objective
from slmops.recipe.student import Head
from slmops.tasks.base import ParseFailure, Row, Task
from slmops.teach.answers import Answer
from slmops.teach.certainty import member_certainties
from slmops.train.alignment import align_answers, align_references
from slmops.train.class_weights import weighed
from slmops.train.contrast import comparable
from slmops.train.examples import Example
from slmops.train.kinship import Kinship
from slmops.train.objectives.base import SPANS, STORED
from slmops.train.objectives.make import all_needs, refuse_token_by_token
from slmops.train.prepare import finished, reference_examples, retold_examples, taught_examples
from slmops.train.tagged import Answered, tagged_examples


@dataclass(frozen=True)
class Lessons:
    """Examples in the student's tokens.

    Attributes:
        names: the row of each example, for messages.
        left_out: how many answers and rows are not among them, by reason.
    """

    examples: list[Example]
    names: list[str]
    left_out: Mapping[str, int]


def lessons(
    answers: Sequence[Answer],
    rows: Sequence[Row],
    task: Task,
    tokenizer: Tokenizer,
    objective: Objective,
    kin: Kinship,
    *,
    teacher: Tokenizer | None,
    max_cut_off: float,
) -> Lessons:
    """The answers to the pool, and behind them the labelled rows.

    Args:
        tokenizer: the student's.
        teacher: the tokenizer of the model that answered; where it is another, or where a term goes by spans.
        max_cut_off: share of the answers that may be left out.

    Raises:
        BadInput: a term compares the two models token by token, and the student has tokens of its own; or too many
            answers were cut off.
    """
    if kin.shared:
        taught = taught_examples(answers, task, tokenizer, kin.tokens)
    else:
        refuse_token_by_token(objective)
        assert teacher is not None  # noqa: S101
        taught = retold_examples(answers, task, tokenizer, teacher.end_ids)
    whole = finished(taught, tokenizer, max_cut_off=max_cut_off)
    taught, kept = [taught[i] for i in whole], [answers[i] for i in whole]
    needs, stored_k = all_needs(objective), answers[0].top_ids.shape[1]
    references = reference_examples(rows, task, tokenizer, soft_k=stored_k if STORED in needs else 0)
    if needs & SPANS:
        assert teacher is not None  # noqa: S101
        taught = align_answers(taught, kept, task, tokenizer, teacher)
        references = align_references(references, rows, task, tokenizer, teacher, stored_k=stored_k)
    names = [answer.id for answer in kept] + [row["id"] for row in rows]
    classes = classes_of(kept, rows, task)
    texts = texts_of(kept, rows, task)
    every = comparable(weighed(taught + references, classes, objective), classes, texts, tokenizer, objective)
    return Lessons(every, names, {"cut_off": len(answers) - len(kept)})


def classes_of(answers: Sequence[Answer], rows: Sequence[Row], task: Task) -> list[str | None]:
    """The class of each answer, and behind them of the rows; None where one has none."""
    return [*(class_of(task, answer.text) for answer in answers), *(task.label(row["output"]) for row in rows)]


def texts_of(answers: Sequence[Answer], rows: Sequence[Row], task: Task) -> list[tuple[str, str]]:
    """What was asked and what is answered, of the answers and behind them of the rows."""
    told = [(answer.input, answer.text) for answer in answers]
    return told + [(row["input"], task.write(row["output"])) for row in rows]


def class_of(task: Task, text: str) -> str | None:
    """The class of an answer; None where it has none, or not the form of the task."""
    parsed = task.parse(text)
    return None if isinstance(parsed, ParseFailure) else task.label(parsed)


def marked_lessons(
    answers: Sequence[Answer],
    rows: Sequence[Row],
    task: Task,
    tokenizer: Tokenizer,
    objective: Objective,
    teacher: Tokenizer,
) -> Lessons:
    """The same for a student that labels, whose tokenizer this is: both as marks on their texts, where they can be."""
    told = [
        Answered(answer.id, answer.input, task.parse(answer.text), member_certainties(answer, teacher))
        for answer in answers
    ]
    taught, names = tagged_examples(told, task, tokenizer)
    labelled, others = labelled_examples(rows, task, tokenizer, "tags")
    known = set(others)
    kept = [row for row in rows if row["id"] in known]
    classes = classes_of(answers, kept, task)
    every = comparable(taught + labelled, classes, texts_of(answers, kept, task), tokenizer, objective)
    return Lessons(every, names + others, {"not_in_text": len(rows) - len(labelled)})


def labelled_examples(
    rows: Sequence[Row], task: Task, tokenizer: Tokenizer, head: Head
) -> tuple[list[Example], list[str]]:
    """Labelled rows as examples, and which rows they are: not all can be learned by a student that labels."""
    if head == "tags":
        return tagged_examples((Answered(row["id"], row["input"], row["output"]) for row in rows), task, tokenizer)
    return reference_examples(rows, task, tokenizer), [row["id"] for row in rows]
