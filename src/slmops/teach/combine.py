"""Several teachers as one: whose words count, and what all of them find likely there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from slmops.engines.base import Engine, Top
from slmops.models.tokenizer import Tokenizer, end_of_answer
from slmops.progress import Progress, Silent
from slmops.tasks.base import ParseFailure, Task
from slmops.teach.answers import Answer

_LEAST = np.finfo(np.float64).tiny
"""So that the logarithm of a mass that rounds to nothing stays finite."""


def shares(weights: Sequence[float]) -> list[float]:
    """The weights so scaled that they add up to 1: λ_t = w_t / Σ w."""
    whole = math.fsum(weights)
    return [weight / whole for weight in weights]


def elect(answers: Sequence[Answer | None], weights: Sequence[float], task: Task) -> int | None:
    """The position of the teacher whose words are learned: argmax_y Σ_t w_t [y_t = y], and of those the heaviest.

    It is the mode of the teachers' mixture where each is taken by its own most likely answer, as a student that learns
    from one teacher's text takes the mode of its distribution (Kim and Rush 2016, section 3.2). Answers are the same
    when the task reads them the same. Of what is equally heavy the first counts.

    Args:
        answers: to one row, of each teacher; None where it has none of the task's form.

    Returns:
        None where no teacher has an answer.
    """
    groups = alike([answer.text if answer else None for answer in answers], task)
    if not groups:
        return None
    teachers = max(groups, key=lambda group: math.fsum(weights[teacher] for teacher in group))
    return max(teachers, key=lambda teacher: weights[teacher])


def alike(texts: Sequence[str | None], task: Task) -> list[list[int]]:
    """The positions of texts that the task reads the same, in the order in which they first stand; without None.

    Texts that it cannot read are the same when they are.
    """
    groups: list[tuple[Any, list[int]]] = []
    for position, text in enumerate(texts):
        if text is None:
            continue
        parsed = task.parse(text)
        read = text if isinstance(parsed, ParseFailure) else parsed
        same = [positions for other, positions in groups if other == read]
        if same:
            same[0].append(position)
        else:
            groups.append((read, [position]))
    return [positions for _, positions in groups]


def mixed(parts: Sequence[Top], weights: Sequence[float]) -> Top:
    """The mixture of several teachers' next-token distributions, p(v) = Σ_t λ_t p_t(v), at each place of one text.

    The mean of the teachers' distributions is what several teachers are commonly imitated by (Fukuda et al. 2017; You
    et al. 2017). Of each only its most likely tokens are known: any other token counts as 0 there, and its mass stays
    in "anything else", λ_t times at most the least of those that are known. As many of the mixture's most likely tokens
    are kept as the largest part has.

    Args:
        parts: of each teacher, ids int32 [n, k] and log-probabilities float32 [n, k] under its full softmax.
        weights: of each teacher, above 0; scaled to add up to 1.

    Returns:
        Ids and log-probabilities, [n, k] each, most likely first. They are the same in whatever order teachers come.
    """
    ids = np.concatenate([ids for ids, _ in parts], axis=1).astype(np.int64)
    probs = [np.exp(log_probs.astype(np.float64)) for _, log_probs in parts]
    scaled = [share * prob for share, prob in zip(shares(weights), probs, strict=True)]
    places, k = len(ids), max(prob.shape[1] for prob in probs)
    vocabulary = int(ids.max(initial=0)) + 1
    key, mass = (np.arange(places)[:, None] * vocabulary + ids).ravel(), np.concatenate(scaled, axis=1).ravel()
    # Sorted by size too, so that a sum of several does not depend on who came first.
    order = np.lexsort((mass, key))
    key, mass = key[order], mass[order]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    mass = np.add.reduceat(mass, starts) if len(starts) else mass
    place, token = np.divmod(key[starts], vocabulary)
    order = np.lexsort((token, -mass, place))
    chosen = order[np.searchsorted(place, np.arange(places))[:, None] + np.arange(k)]
    return token[chosen].astype(np.int32), np.log(np.maximum(mass[chosen], _LEAST)).astype(np.float32)


def together(
    texts: Sequence[Answer],
    given: Sequence[Mapping[str, Answer]],
    weights: Sequence[float],
    read: Callable[[int, Sequence[Answer]], list[Top]],
) -> list[Answer]:
    """The texts with what all teachers together find likely at each of their tokens; see `mixed`.

    What a teacher wrote itself, token for token, it need not read: what it found likely then is known.

    Args:
        given: the answers of each teacher, by row.
        read: what the teacher at a position finds likely at each token of texts; see `opinions`.
    """
    parts = []
    for teacher, answers in enumerate(given):
        found: dict[str, Top] = {}
        for text in texts:
            own = answers.get(text.id)
            if own is not None and np.array_equal(own.tokens, text.tokens):
                found[text.id] = own.top_ids, own.top_log_probs
        others = [text for text in texts if text.id not in found]
        found |= dict(zip([text.id for text in others], read(teacher, others), strict=True))
        parts.append([found[text.id] for text in texts])
    tops = [mixed(of_text, weights) for of_text in zip(*parts, strict=True)]
    return [replace(text, top_ids=ids, top_log_probs=probs) for text, (ids, probs) in zip(texts, tops, strict=True)]


def share_vocabulary(one: Tokenizer, other: Tokenizer) -> bool:
    """Whether two models mean the same by every token, and end an answer with the same."""
    same: bool = one.backend.get_vocab(with_added_tokens=True) == other.backend.get_vocab(with_added_tokens=True)
    return same and end_of_answer(one) == end_of_answer(other)


def retold(answer: Answer, writer: Tokenizer, reader: Tokenizer) -> Answer:
    """The words of an answer in the tokens of `reader`, without probabilities; ended where the writer ended it."""
    tokens = reader.encode(answer.text)
    if answer.tokens[-1] in writer.end_ids:
        tokens.append(end_of_answer(reader))
    nothing = np.zeros((len(tokens), 0))
    return replace(
        answer,
        tokens=np.array(tokens, dtype=np.int64),
        top_ids=nothing.astype(np.int32),
        top_log_probs=nothing.astype(np.float32),
    )


def opinions(
    engine: Engine,
    tokenizer: Tokenizer,
    task: Task,
    texts: Sequence[Answer],
    *,
    batch: int,
    top_logits: int,
    progress: Progress | None = None,
) -> list[Top]:
    """What a teacher finds likely at each token of answers that others wrote, asked as it is asked itself.

    Answers of like length are run together, `batch` at a time.

    Raises:
        BadInput: an answer with its prompt is longer than this teacher's context.
    """
    prompts = [tokenizer.prompt(task.render(text.input)) for text in texts]
    order = sorted(range(len(texts)), key=lambda i: len(prompts[i]) + len(texts[i].tokens))
    found: dict[int, Top] = {}
    with (progress or Silent()).task("teacher reads the others' answers", len(texts), "rows") as bar:
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            written = [texts[i].tokens.tolist() for i in rows]
            tops = engine.score_top([prompts[i] for i in rows], written, top_logits=top_logits)
            found |= dict(zip(rows, tops, strict=True))
            bar.advance(len(rows))
    return [found[i] for i in range(len(texts))]
