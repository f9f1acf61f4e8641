"""How likely each label of a closed set is as the answer, scored rather than written.

Free generation gives one text that may be no label at all; scoring gives every label its likelihood, in one pass per
text, with everything that texts and labels have in common run once (`Engine.score_choices`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from slmops.engines.base import Engine
from slmops.errors import BadInput
from slmops.models.tokenizer import Tokenizer
from slmops.tasks import Classification, Task


def closed_set(task: Task) -> tuple[str, ...] | None:
    """The labels that an answer is one of, or None for a task with open answers."""
    return task.labels if isinstance(task, Classification) else None


def label_probabilities(
    engine: Engine, tokenizer: Tokenizer, task: Task, texts: Sequence[str], temperature: float = 1.0
) -> list[dict[str, float]]:
    """The probability of every label as the answer to each of `texts`, in the task's order of labels; they add up to 1.

    Args:
        temperature: see `shares`.

    Raises:
        BadInput: see `label_log_likelihoods`.
    """
    labels = closed_set(task) or ()
    scores = label_log_likelihoods(engine, tokenizer, task, texts)
    return [dict(zip(labels, map(float, row), strict=True)) for row in shares(scores, temperature)]


def shares(scores: npt.NDArray[Any], temperature: float) -> npt.NDArray[np.float64]:
    """What of 1 each label has, by its log-likelihood among those of all, [rows, labels].

    Args:
        temperature: that the likelihoods are divided by; above 1 makes less sure (`slmops.evaluate.temperature`).
    """
    scaled = scores.astype(np.float64) / temperature
    parts = np.exp(scaled - scaled.max(axis=1, keepdims=True, initial=-np.inf))
    found: npt.NDArray[np.float64] = parts / parts.sum(axis=1, keepdims=True)
    return found


def label_log_likelihoods(
    engine: Engine, tokenizer: Tokenizer, task: Task, texts: Sequence[str]
) -> npt.NDArray[np.float32]:
    """Log-likelihood of every label as the model's answer, float32 [texts, labels].

    Raises:
        BadInput: the task has no closed set of labels, or a text with its label does not fit into the context.
    """
    labels = closed_set(task)
    if labels is None:
        raise BadInput(f"a task of kind {task.describe()['kind']} has no labels to score")
    prompts = [tokenizer.prompt(task.render(text)) for text in texts]
    return engine.score_choices(prompts, label_tokens(tokenizer, task, labels))


def label_tokens(tokenizer: Tokenizer, task: Task, labels: Sequence[str]) -> list[list[int]]:
    """The tokens of every label, as a model would write it.

    Where one label begins another, the end token belongs to each: without it the shorter could never lose. Otherwise
    it is left out, so that a model which was never taught to stop is asked for nothing but the label.
    """
    written = [tokenizer.encode(task.write(label)) for label in labels]
    firsts = {tuple(tokens[:length]) for tokens in written for length in range(len(tokens))}
    if any(tuple(tokens) in firsts for tokens in written):
        end = min(tokenizer.end_ids)
        return [[*tokens, end] for tokens in written]
    return written
