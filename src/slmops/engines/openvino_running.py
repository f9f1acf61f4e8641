"""A running batch on OpenVINO: prompts that are read and answers that are written are one pass, whoever they are of."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slmops.engines.base import Logits
from slmops.engines.openvino_cache import Cache, Model
from slmops.engines.running import NO_GUESSES, Steps, beginning, by_slot, no_adapter


class OpenVinoRunning:
    """A folder of onnxruntime-genai; see `slmops.engines.running.Running`."""

    guessing, guess_tokens = 8, 6
    """Beyond, a step has tokens enough to be bound by what it computes and not by the weights that it reads."""

    def __init__(self, model: Model, slots: int) -> None:
        self.slots, self.room, self.vocabulary = slots, model.context, model.vocabulary
        self._cache = Cache(model, slots, self.room)
        self._held: list[list[int]] = [[] for _ in range(slots)]

    @classmethod
    def load(cls, folder: Path, *, slots: int, threads: int = 0) -> OpenVinoRunning:
        """See `load_running`."""
        return cls(Model(folder, threads or len(os.sched_getaffinity(0))), slots)

    def begin(self, slot: int, prompt: Sequence[int], adapter: Any = None) -> int:
        """See `Running.begin`. What is shared is read by both, and stored once."""
        no_adapter(adapter, "openvino")
        source, known = beginning(self._held, slot, prompt)
        self._cache.share(source, slot, known)
        self._held[slot] = list(prompt[:known])
        return known

    def rewind(self, slot: int, length: int) -> None:
        """See `Running.rewind`."""
        self._cache.cut(slot, length)
        del self._held[slot][length:]

    def run(self, steps: Steps, guesses: Mapping[int, int] = NO_GUESSES) -> dict[int, Logits]:
        """See `Running.run`. All sequences in one pass."""
        logits = self._cache.run(steps, guesses=guesses)
        for slot, ids in steps.items():
            self._held[slot] += ids
        return by_slot(steps, guesses, logits)
