"""Rows as token sequences, grouped into batches that waste little padding."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt

CHUNK_BATCHES = 20

T = TypeVar("T")


@dataclass(frozen=True)
class SoftTargets:
    """The teacher's most likely tokens at each answer position, in the student's vocabulary.

    Attributes:
        ids: int64 [tokens, k]; -1 where the student has no such token.
        log_probs: float32 [tokens, k], of the teacher's full softmax; the rest of the mass is the tail.
    """

    ids: npt.NDArray[np.int64]
    log_probs: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Aligned:
    """The same prompt and answer in the teacher's tokens, and the spans on which both tokenizations meet.

    Attributes:
        prompt, answer: the teacher's tokens.
        ends: int64 [spans, 2], how many tokens of the teacher's answer and of the student's lie before each span's end.
        log_probs: float32 [spans], the teacher's stored log-likelihood of each; NaN where it is not known.
        begins: float32 [spans, k], its stored highest log-probabilities where each begins; NaN where there are none.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    ends: npt.NDArray[np.int64]
    log_probs: npt.NDArray[np.float32]
    begins: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True)
class Example:
    """A prompt and the answer to learn, as tokens; the answer ends with the end token.

    Attributes:
        labels: for a model that labels, what it is to say at each token of `answer`, which it reads; else the answer is
            what it is to write, each token at the one before.
        certainty: how sure each label is, 0 to 1; None where all are certain.
        counts: how much it counts by its class; None where no classes are weighed.
        label: its class, where a term compares the rows of one.
        texts: its input and its answer as a server makes vectors of them, in tokens, where a term compares those.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    soft: SoftTargets | None = None
    labels: tuple[int, ...] | None = None
    certainty: tuple[float, ...] | None = None
    aligned: Aligned | None = None
    counts: float | None = None
    label: str | None = None
    texts: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)

    @property
    def target(self) -> tuple[int, ...]:
        """What is to be said at the positions of `predicts`."""
        return self.answer if self.labels is None else self.labels

    @property
    def predicts(self) -> slice:
        """Positions at which something is to be said."""
        first = len(self.prompt) - (self.labels is None)
        return slice(first, first + len(self.answer))


def schedule(
    lengths: Sequence[int],
    *,
    epochs: float,
    batch_tokens: int,
    seed: int,
    labels: Sequence[str | None] | None = None,
) -> list[list[int]]:
    """The batches of a whole training run, as lists of row numbers, in order.

    Rows are shuffled, sorted by length within stretches of some twenty batches, cut into batches of at most
    `batch_tokens` tokens (padding included; a longer row stands alone), and the batches shuffled. Every
    row comes once per epoch; a fractional last epoch takes its share of the batches.

    With `labels` no row is in a batch without another of its label, where there is one: two that the shuffling has put
    behind each other are moved as one, and so an odd last one of a label with the two before it.
    """
    rng = random.Random(seed)  # noqa: S311 - an order, not a secret
    batches: list[list[int]] = []
    for epoch in range(math.ceil(epochs)):
        share = min(1.0, epochs - epoch)
        one = _epoch(lengths, batch_tokens, rng, labels)
        batches += one[: max(1, round(len(one) * share))]
    return batches


def in_steps(batches: Sequence[list[int]], size: int) -> list[list[list[int]]]:
    """The batches of each optimiser step: `size` in a row; the last step takes what is left."""
    return [list(batches[start : start + size]) for start in range(0, len(batches), size)]


def in_pieces(batch: Sequence[T], count: int) -> list[list[T]]:
    """A batch in `count` runs of its rows, in order, which differ by one row at most; one of none where it has none.

    Rows of a batch are sorted by length, so a piece has less padding than the whole.
    """
    count = max(1, min(count, len(batch)))
    ends = [len(batch) * i // count for i in range(count + 1)]
    return [list(batch[start:end]) for start, end in pairwise(ends)]


def _epoch(
    lengths: Sequence[int], batch_tokens: int, rng: random.Random, labels: Sequence[str | None] | None
) -> list[list[int]]:
    order = list(range(len(lengths)))
    rng.shuffle(order)
    if labels is None:
        parts = [[i] for i in order]
    else:
        parts = _in_twos(order, labels)
        rng.shuffle(parts)

    def longest(part: list[int]) -> int:
        return max(lengths[i] for i in part)

    mean = max(1, sum(lengths) // len(parts))
    stretch = max(1, CHUNK_BATCHES * batch_tokens // mean)
    batches: list[list[int]] = []
    for start in range(0, len(parts), stretch):
        batch: list[int] = []
        for part in sorted(parts[start : start + stretch], key=longest):
            if batch and (len(batch) + len(part)) * longest(part) > batch_tokens:
                batches.append(batch)
                batch = []
            batch += part
        batches.append(batch)
    rng.shuffle(batches)
    return batches


def _in_twos(order: Sequence[int], labels: Sequence[str | None]) -> list[list[int]]:
    """Two rows of a label in each part, three in its last where they are odd; a row without one is alone."""
    rows: dict[str | int, list[int]] = {}
    for i in order:
        label = labels[i]
        rows.setdefault(i if label is None else label, []).append(i)
    return [part for of_one in rows.values() for part in _twos(of_one)]


def _twos(rows: list[int]) -> list[list[int]]:
    parts = [rows[start : start + 2] for start in range(0, len(rows), 2)]
    if len(parts) > 1 and len(parts[-1]) == 1:
        odd = parts.pop()
        parts[-1] += odd
    return parts


def certain(answer: Sequence[int], k: int) -> SoftTargets:
    """A reference answer as soft targets: all mass on the written token, so the KL term is its cross-entropy."""
    ids = np.full((len(answer), k), -1, dtype=np.int64)
    log_probs = np.full((len(answer), k), -np.inf, dtype=np.float32)
    ids[:, 0], log_probs[:, 0] = answer, 0.0
    return SoftTargets(ids, log_probs)
