"""A job that says how likely each of some choices is as the answer, without writing one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile

import numpy as np

from slmops.engines.base import Logits
from slmops.engines.choices import Node, searching
from slmops.serve.job import Ended, Move

Found = Callable[[Logits | Ended], None]
"""Takes the log-likelihood of every choice, or why there is none, and returns at once."""


class Choosing:
    """The choices of one prompt; see `slmops.serve.job.Job`.

    Its sequence walks the tree of the choices token by token, so it shares every step with the others in the batch.
    """

    def __init__(self, prompt: Sequence[int], nodes: Sequence[Node], choices: int, found: Found) -> None:
        """`nodes` are the tree of `choices` choices, which have room behind the prompt."""
        self.prompt, self.written = prompt, 0
        self._found = found
        self._steps = searching(nodes, choices)
        self._wanted: tuple[int, ...] = next(self._steps)
        self._at: tuple[int, ...] = ()
        self._seen: dict[tuple[int, ...], Logits] = {}

    def go_on(self, logits: Logits) -> Move | Ended:
        """See `Job.go_on`."""
        self._seen[self._at] = logits[-1]
        try:
            while (path := self._unseen()) is None:
                seen = [self._seen[beginning] for beginning in _beginnings(self._wanted)]
                self._wanted = self._steps.send(np.stack(seen))
        except StopIteration as end:
            self._found(end.value)
            return "stop"
        kept = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._at, path, strict=False)))
        self._at = path
        return Move(len(self.prompt) + kept, path[kept:])

    def _unseen(self) -> tuple[int, ...] | None:
        """The shortest beginning of the wanted path whose logits are not known."""
        return next((path for path in _beginnings(self._wanted) if path not in self._seen), None)

    def stop(self, ended: Ended) -> None:
        """See `Job.stop`."""
        self._found(ended)


def _beginnings(path: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [path[:depth] for depth in range(len(path) + 1)]
