"""Answers in the tokens of two tokenizers side by side, and the spans of text on which both meet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from slmops.models.tokenizer import Tokenizer, end_of_answer
from slmops.tasks.base import Row, Task
from slmops.teach.answers import Answer
from slmops.train.examples import Aligned, Example


def pieces(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[str]:
    """The text that becomes whole with each token; together they are what the tokens decode to.

    A token that leaves a character incomplete, such as a single byte of it, has the empty text, and the one that
    completes it has all. So has a control token the empty text.
    """
    stream = tokenizer.stream()
    found = [stream.feed(token) for token in tokens]
    if found:
        found[-1] += stream.flush()
    return found


def common_spans(theirs: Sequence[str], ours: Sequence[str]) -> list[tuple[int, int]]:
    """The ends of the shortest spans of text at whose ends a piece of both tokenizations ends.

    What has no text belongs to the piece behind it. At the end of the answer it is a span of its own where both have
    something there, such as the end token, else it belongs to the last span. Pieces that are not of one text, because a
    tokenizer normalises what it reads, have all in common as a whole and nothing else: one span.

    Returns:
        For each span, how many of `theirs` and of `ours` lie before its end; the last has all of both.
    """
    whole = (len(theirs), len(ours))
    if "".join(theirs) != "".join(ours):
        return [whole]
    first, second = _ends(theirs), _ends(ours)
    ends = [(first[place], second[place]) for place in sorted(first.keys() & second.keys())]
    left = [count - last for count, last in zip(whole, ends[-1] if ends else (0, 0), strict=True)]
    if ends and any(left) and not all(left):
        ends.pop()
    return ends if ends and ends[-1] == whole else [*ends, whole]


def _ends(pieces: Sequence[str]) -> dict[int, int]:
    """How many pieces it takes to get to each place in the text where one ends; the beginning is none."""
    ends: dict[int, int] = {}
    for count, place in enumerate(accumulate(map(len, pieces)), start=1):
        if place:
            ends.setdefault(place, count)
    return ends


def align_answers(
    examples: Iterable[Example], answers: Iterable[Answer], task: Task, tokenizer: Tokenizer, teacher: Tokenizer
) -> list[Example]:
    """The examples made of the teacher's answers, with their spans and what the teacher gave to each.

    A span has no likelihood where one of its tokens was not among those kept of its position, as a drawn one may be.
    """
    aligned = []
    for example, answer in zip(examples, answers, strict=True):
        tokens = tuple(answer.tokens.tolist())
        ends = _span_ends(teacher, tokens, tokenizer, example.answer)
        begins = np.concatenate([[0], ends[:-1, 0]])
        log_probs = np.add.reduceat(_written(answer), begins)
        prompt = tuple(teacher.prompt(task.render(answer.input)))
        aligned.append(replace(example, aligned=Aligned(prompt, tokens, ends, log_probs, answer.top_log_probs[begins])))
    return aligned


def align_references(
    examples: Iterable[Example],
    rows: Iterable[Row],
    task: Task,
    tokenizer: Tokenizer,
    teacher: Tokenizer,
    *,
    stored_k: int,
) -> list[Example]:
    """The examples made of labelled rows, with their spans: each is certain, and what else was likely is not known.

    Args:
        stored_k: how many log-probabilities are kept for each token of the teacher's answers.
    """
    end, aligned = end_of_answer(teacher), []
    for example, row in zip(examples, rows, strict=True):
        tokens = (*teacher.encode(task.write(row["output"])), end)
        ends = _span_ends(teacher, tokens, tokenizer, example.answer)
        prompt = tuple(teacher.prompt(task.render(row["input"])))
        certain = np.zeros(len(ends), dtype=np.float32)
        unknown = np.full((len(ends), stored_k), np.nan, dtype=np.float32)
        aligned.append(replace(example, aligned=Aligned(prompt, tokens, ends, certain, unknown)))
    return aligned


def _span_ends(
    teacher: Tokenizer, theirs: Sequence[int], student: Tokenizer, ours: Sequence[int]
) -> npt.NDArray[np.int64]:
    return np.array(common_spans(pieces(teacher, theirs), pieces(student, ours)), dtype=np.int64)


def _written(answer: Answer) -> npt.NDArray[np.float32]:
    """The log-probability of each token that was written, [n]; NaN where it is not among those kept."""
    found = answer.top_ids == answer.tokens[:, None]
    log_probs = np.where(found, answer.top_log_probs, 0).sum(axis=1, dtype=np.float32)
    return np.where(found.any(axis=1), log_probs, np.float32(np.nan))
