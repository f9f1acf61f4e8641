"""What a scheduler knows of a request: which tokens to run next, and when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from slmops.engines.base import Logits

Ended = Literal["stop", "length", "cancelled", "deadline", "failed"]
"""Why a request ends: by itself; at its longest; given up; out of time; the runtime failed."""


class Move(NamedTuple):
    """Keep the first `keep` tokens of the sequence, and append `ids` to them, at least one.

    Attributes:
        guesses: what may follow them; they are run along where that costs little.
    """

    keep: int
    ids: Sequence[int]
    guesses: Sequence[int] = ()


class Job(Protocol):
    """One sequence on its way. Its methods are called in the scheduler's thread, and must return at once.

    Attributes:
        prompt: what the sequence begins with.
        written: tokens that it has made so far.
    """

    prompt: Sequence[int]
    written: int

    def go_on(self, logits: Logits) -> Move | Ended:
        """Take what `Running.run` found behind the sequence; what to run next, or how it ended: then it is told.

        Args:
            logits: [1 + guesses that were run, vocabulary].
        """

    def stop(self, ended: Ended) -> None:
        """It ends without having come to its end."""
