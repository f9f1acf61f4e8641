"""A model that labels as a running batch: what is there as a whole is run, and together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slmops.engines.base import Logits, Prompts
from slmops.engines.running import NO_GUESSES, Steps, no_adapter
from slmops.engines.tagging import TaggingEngine, alike


class TaggingRunning:
    """See `slmops.engines.running.Running`. Its sequences are readings (`TaggingEngine.reading`), from the start.

    Behind the last token of a reading `run` gives no logits but the last hidden states of all its tokens, float32
    [tokens or more, width]; behind any other token nothing, [0].

    Attributes:
        engine: reads answers off them.
    """

    guessing, guess_tokens = 0, 0

    def __init__(self, engine: TaggingEngine, slots: int) -> None:
        self.engine, self.slots = engine, slots
        self.room, self.vocabulary = engine.body.info().context_tokens, engine.body.vocabulary
        self._wanted: list[Sequence[int]] = [[] for _ in range(slots)]
        self._held: list[list[int]] = [[] for _ in range(slots)]

    embeds = True

    def states(self, sequences: Prompts) -> Logits:
        """See `slmops.engines.running.Embedding`."""
        return self.engine.body.states(sequences)

    def begin(self, slot: int, prompt: Sequence[int], adapter: Any = None) -> int:
        """See `Running.begin`. A reading is run as a whole, so nothing is taken over from another."""
        no_adapter(adapter, "a model that marks")
        self._wanted[slot], self._held[slot] = prompt, []
        return 0

    def rewind(self, slot: int, length: int) -> None:
        """See `Running.rewind`."""
        del self._held[slot][length:]

    def run(self, steps: Steps, guesses: Mapping[int, int] = NO_GUESSES) -> dict[int, Logits]:  # noqa: ARG002
        """See `Running.run`."""
        for slot, ids in steps.items():
            self._held[slot] += ids
        found = {slot: np.empty(0, dtype=np.float32) for slot in steps}
        whole = [slot for slot in steps if len(self._held[slot]) == len(self._wanted[slot])]
        sequences = [self._held[slot] for slot in whole]
        for rows in alike(sequences):
            states = self.engine.body.states([sequences[row] for row in rows])
            found |= {whole[row]: one for row, one in zip(rows, states, strict=True)}
        return found
