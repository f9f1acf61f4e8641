"""Choosing the next token from logits: the same arithmetic for every engine."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import numpy.typing as npt

from slmops.engines.base import Logits, Prompts, Sampling, Top

_WORTH_SORTING = np.float32(-12)
"""Logits this far below the largest are rarely among the first few."""


class Sampler:
    """Draws the tokens of a batch.

    The draws of a request depend on the seed, on its prompt and on how many equal prompts stand before it,
    so the same request writes the same text in whatever batch it stands.
    """

    def __init__(self, sampling: Sampling, prompts: Prompts) -> None:
        self._sampling = sampling
        self._random = _generators(sampling.seed, prompts) if sampling.temperature > 0 else []

    def choose(self, request: int, logits: Logits) -> int:
        """The next token of `request` given `logits` [vocabulary]."""
        if self._sampling.temperature == 0:
            return int(logits.argmax())
        ids, cumulative = nucleus(logits, self._sampling.temperature, self._sampling.top_p)
        drawn = np.searchsorted(cumulative, self._random[request].random() * cumulative[-1], side="right")
        return int(ids[min(int(drawn), len(ids) - 1)])


def nucleus(logits: Logits, temperature: float, top_p: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The most likely tokens that together hold at least `top_p` of the mass (Holtzman et al. 2020, section 3.1).

    Returns:
        Their ids, and their probabilities added up one by one.
    """
    # The largest logit is taken off before the division, so that no temperature is too small.
    mass = np.exp((logits - logits.max()).astype(np.float64) / temperature)
    mass /= mass.sum()
    if top_p == 1:
        ids = np.flatnonzero(mass)
    else:
        order = np.argsort(-mass, kind="stable")
        before = np.cumsum(mass[order]) - mass[order]
        ids = order[before < top_p]
    return ids, np.cumsum(mass[ids])


def top(logits: Logits, k: int) -> Top:
    """Ids and log-probabilities of the `k` most likely of `logits` [vocabulary], the lower id first among equals.

    The log-probabilities are those of the whole softmax, so what the k leave over is known too.
    """
    k = min(k, len(logits))
    above = logits - logits.max()
    # Sorting a whole vocabulary for every token would cost as much as a small model's forward pass.
    ids = np.flatnonzero(above > _WORTH_SORTING)
    if len(ids) < k:
        ids = np.argpartition(-logits, k - 1)[:k]
    ids = ids[np.lexsort((ids, -logits[ids]))][:k]
    return ids.astype(np.int32), above[ids] - np.log(np.exp(above).sum())


def _generators(seed: int, prompts: Prompts) -> list[np.random.Generator]:
    seen: Counter[bytes] = Counter()
    generators = []
    for prompt in prompts:
        digest = hashlib.sha256(np.asarray(prompt, dtype=np.int64).tobytes()).digest()
        generators.append(np.random.default_rng([seed, seen[digest], int.from_bytes(digest[:16])]))
        seen[digest] += 1
    return generators
