"""A running batch on llama.cpp: its cache knows sequences of any lengths, which can share what they begin with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slmops.engines.base import Logits
from slmops.engines.llamacpp import CONTEXT_TOKENS, FILE, Model, Place
from slmops.engines.running import NO_GUESSES, Steps, beginning, by_slot, no_adapter


class LlamaCppRunning:
    """A folder with a GGUF file; see `slmops.engines.running.Running`."""

    guessing, guess_tokens = 4, 6
    """Beyond, a step has tokens enough to be bound by what it computes and not by the weights that it reads."""

    def __init__(self, model: Model, slots: int) -> None:
        self._model, self.slots = model, slots
        self.room = min(CONTEXT_TOKENS, model.trained_tokens)
        self.vocabulary = model.vocabulary
        self._held: list[list[int]] = [[] for _ in range(slots)]
        model.make_room(slots, slots * self.room)

    @classmethod
    def load(cls, folder: Path, *, slots: int, threads: int = 0) -> LlamaCppRunning:
        """See `load_running`."""
        return cls(Model(folder / FILE, threads or len(os.sched_getaffinity(0))), slots)

    def begin(self, slot: int, prompt: Sequence[int], adapter: Any = None) -> int:
        """See `Running.begin`. What is shared is read by both, and stored once."""
        no_adapter(adapter, "llama.cpp")
        source, known = beginning(self._held, slot, prompt)
        if source == slot:
            self._model.forget(slot, known)
        else:
            self._model.forget(slot)
            self._model.share(source, slot, known)
        self._held[slot] = list(prompt[:known])
        return known

    def rewind(self, slot: int, length: int) -> None:
        """See `Running.rewind`."""
        self._model.forget(slot, length)
        del self._held[slot][length:]

    def run(self, steps: Steps, guesses: Mapping[int, int] = NO_GUESSES) -> dict[int, Logits]:
        """See `Running.run`. All sequences in one pass."""
        places = [
            Place(slot, len(self._held[slot]) + i, id, i >= len(ids) - 1 - guesses.get(slot, 0))
            for slot, ids in steps.items()
            for i, id in enumerate(ids)
        ]
        logits = self._model.run(places)
        for slot, ids in steps.items():
            self._held[slot] += ids
        return by_slot(steps, guesses, logits)
