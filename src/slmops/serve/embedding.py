"""Texts as vectors: the mean of a model's last hidden states over a text's tokens, of length one.

Source: Reimers and Gurevych (2019), "Sentence-BERT", EMNLP, section 3, pooling MEAN.
"""

from __future__ import annotations

import asyncio
import time

import numpy as np
import numpy.typing as npt

from slmops.engines.base import Prompts
from slmops.engines.running import Embedding
from slmops.engines.tagging import alike
from slmops.serve.scheduler import Refused

_RETRY_S = 1


class OutOfTime(Exception):
    """The vectors were not there at the deadline."""


class Embedder:
    """Runs texts of one request together, and one request after another."""

    def __init__(self, model: Embedding, *, queue: int) -> None:
        """`queue` requests wait at most."""
        self._model, self._most = model, queue
        self._waiting, self._turn = 0, asyncio.Lock()

    async def embed(self, sequences: Prompts, deadline: float) -> npt.NDArray[np.float32]:
        """A vector for each sequence, float32 [sequences, width].

        Args:
            sequences: tokens of texts, checked against the model.
            deadline: by `time.monotonic`.

        Raises:
            Refused: too many wait.
            OutOfTime: it is past the deadline.
        """
        if self._waiting >= self._most:
            raise Refused(_RETRY_S)
        self._waiting += 1
        try:
            async with self._turn:
                found: dict[int, npt.NDArray[np.float32]] = {}
                for rows in alike(sequences):
                    if time.monotonic() > deadline:
                        raise OutOfTime
                    vectors = await asyncio.to_thread(self._run, [sequences[row] for row in rows])
                    found |= dict(zip(rows, vectors, strict=True))
        finally:
            self._waiting -= 1
        return np.stack([found[row] for row in range(len(sequences))])

    def _run(self, sequences: Prompts) -> list[npt.NDArray[np.float32]]:
        states = self._model.states(sequences)
        means = [one[: len(ids)].mean(axis=0) for one, ids in zip(states, sequences, strict=True)]
        return [mean / max(float(np.linalg.norm(mean)), 1e-12) for mean in means]
