"""A job that says how likely each of some choices is as the answer, without writing one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile

from slmops.engines.base import Logits
from slmops.engines.choices import Node, searching
from slmops.serve.job import Ended, Move

Found = Callable[[Logits | Ended], None]
"""Takes the log-likelihood of every choice, or why there is none, and returns at once."""


class Choosing:
    """The choices of one prompt; see `slmops.serve.job.Job`.

    Its sequence walks the tree of the choices, so it shares what is run with the others in the batch.
    """

    def __init__(self, prompt: Sequence[int], nodes: Sequence[Node], choices: int, found: Found) -> None:
        """`nodes` are the tree of `choices` choices, which have room behind the prompt."""
        self.prompt, self.written = prompt, 0
        self._found = found
        self._steps = searching(nodes, choices)
        self._wanted: tuple[int, ...] = next(self._steps)
        self._at: tuple[int, ...] = ()

    def go_on(self, logits: Logits) -> Move | Ended:
        """See `Job.go_on`."""
        if self._at == self._wanted:
            try:
                self._wanted = self._steps.send(logits[-1])
            except StopIteration as end:
                self._found(end.value)
                return "stop"
        # A path's own last token is run in any case, for its logits are wanted.
        pairs = zip(self._at, self._wanted[:-1], strict=False)
        kept = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        self._at = self._wanted
        return Move(len(self.prompt) + kept, self._wanted[kept:])

    def stop(self, ended: Ended) -> None:
        """See `Job.stop`."""
        self._found(ended)
