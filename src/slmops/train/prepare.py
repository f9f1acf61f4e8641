"""From rows to training examples, in the words of one tokenizer."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence, Sized
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from slmops.errors import BadInput
from slmops.models.tokenizer import Tokenizer, end_of_answer
from slmops.tasks.base import Row, Task
from slmops.teach.answers import Answer
from slmops.train.examples import Example, SoftTargets, certain

Long = TypeVar("Long", bound=Sized)


def reference_examples(rows: Iterable[Row], task: Task, tokenizer: Tokenizer, *, soft_k: int = 0) -> list[Example]:
    """Labelled rows as examples; with `soft_k`, carrying their answer as certain soft targets of that width."""
    end = end_of_answer(tokenizer)
    examples = []
    for row in rows:
        answer = (*tokenizer.encode(task.write(row["output"])), end)
        soft = certain(answer, soft_k) if soft_k else None
        examples.append(Example(tuple(tokenizer.prompt(task.render(row["input"]))), answer, soft))
    return examples


def unanswered_examples(rows: Iterable[Row], task: Task, tokenizer: Tokenizer) -> list[Example]:
    """Rows with the shortest of answers, the end token alone: what must fit into a context at the least."""
    answer = (end_of_answer(tokenizer),)
    return [Example(tuple(tokenizer.prompt(task.render(row["input"]))), answer) for row in rows]


def taught_examples(
    answers: Iterable[Answer], task: Task, tokenizer: Tokenizer, kept_tokens: Sequence[int] | None
) -> list[Example]:
    """The teacher's answers as examples in the student's vocabulary.

    Args:
        kept_tokens: old id of each of the student's tokens, ascending; None when the vocabularies are the same.

    Raises:
        BadInput: an answer holds a token that the student lacks.
    """
    kept = None if kept_tokens is None else np.asarray(kept_tokens, dtype=np.int64)
    examples = []
    for answer in answers:
        tokens, ids = answer.tokens, answer.top_ids.astype(np.int64)
        if kept is not None:
            tokens, ids = _renumbered(tokens, kept), _renumbered(ids, kept)
        if (tokens < 0).any():
            raise BadInput(
                f"the teacher's answer to {answer.id} holds a token that the student's vocabulary lacks",
                hint="set student.carve.vocabulary: keep",
            )
        prompt = tuple(tokenizer.prompt(task.render(answer.input)))
        soft = SoftTargets(ids, answer.top_log_probs) if ids.shape[1] else None
        examples.append(Example(prompt, tuple(int(token) for token in tokens), soft))
    return examples


def _renumbered(ids: npt.NDArray[np.int64], kept: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Each id as its place among the `kept` ones, -1 where it is not among them."""
    places = np.searchsorted(kept, ids).clip(max=len(kept) - 1)
    return np.where(kept[places] == ids, places, -1)


def retold_examples(
    answers: Iterable[Answer], task: Task, tokenizer: Tokenizer, teachers_ends: Collection[int]
) -> list[Example]:
    """The words of the teacher's answers as examples, for a student of another model.

    An answer that was cut off, which ends with none of the teacher's end tokens, gets no end.
    """
    end = end_of_answer(tokenizer)
    examples = []
    for answer in answers:
        tokens = tuple(tokenizer.encode(answer.text))
        whole = len(answer.tokens) and int(answer.tokens[-1]) in teachers_ends
        prompt = tuple(tokenizer.prompt(task.render(answer.input)))
        examples.append(Example(prompt, (*tokens, end) if whole else tokens))
    return examples


def check_lengths(examples: Sequence[Sized], names: Sequence[str], model: Path) -> None:
    """Refuse examples that do not fit the context of the model in folder `model`.

    Raises:
        BadInput: names the longest of them and how many there are.
    """
    fitting(examples, names, model, max_too_long=0.0)


def fitting(examples: Sequence[Long], names: Sequence[str], model: Path, *, max_too_long: float) -> list[Long]:
    """The examples that fit the context of the model in folder `model`: none is ever cut to fit.

    Args:
        max_too_long: share of the examples that may be left out.

    Raises:
        BadInput: more are too long; names the longest of them and how many there are.
    """
    context = json.loads((model / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"]
    long = [(len(example), name) for example, name in zip(examples, names, strict=True) if len(example) > context]
    if len(long) > max_too_long * len(examples) or len(long) == len(examples) > 0:
        length, name = max(long)
        bound = f", and max_too_long is {max_too_long:.1%} of {len(examples)}" if max_too_long else ""
        raise BadInput(
            f"{len(long)} rows are longer than the model's context of {context} tokens; row {name} has {length}{bound}",
            hint="shorten or remove them",
        )
    return [example for example in examples if len(example) <= context]


def finished(examples: Sequence[Example], tokenizer: Tokenizer, *, max_cut_off: float) -> list[int]:
    """Positions of the examples whose answer ends with an end token: from any other a student learns not to stop.

    Args:
        max_cut_off: share of the examples that may be left out.

    Raises:
        BadInput: more answers were cut off, or all.
    """
    kept = [i for i, e in enumerate(examples) if e.answer and e.answer[-1] in tokenizer.end_ids]
    cut = len(examples) - len(kept)
    if cut > max_cut_off * len(examples) or (examples and not kept):
        raise BadInput(
            f"{cut} of the teacher's {len(examples)} answers were cut off before their end, and train.max_cut_off is "
            f"{max_cut_off:.1%}",
            hint="raise task.max_answer_tokens, or fit the teacher longer (teachers.0.fit.epochs)",
        )
    return kept
