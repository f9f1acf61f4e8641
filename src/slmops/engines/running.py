"""A batch that requests join and leave while it runs: what a server drives an engine by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from slmops.engines.base import Logits, Prompts

Steps = Mapping[int, Sequence[int]]
"""Slots, and the tokens that are appended to the sequence of each."""


class Running(Protocol):
    """Sequences of one loaded model, each in a slot of its own. Not safe for use by several threads at once.

    Attributes:
        slots: sequences at a time; they are numbered from 0.
        room: tokens that a sequence may have.
        vocabulary: tokens that there are.
    """

    slots: int
    room: int
    vocabulary: int

    def begin(self, slot: int, prompt: Sequence[int]) -> int:
        """Give a slot to a new sequence, in place of what it held; nothing is run yet.

        What the sequence has in common with one that a slot holds, or held last, is taken over from there.

        Args:
            prompt: checked by `slmops.engines.decoding.check`.

        Returns:
            How many tokens of the prompt are there already: all but one at most. The others are to be appended.
        """

    def rewind(self, slot: int, length: int) -> None:
        """Keep the first `length` tokens of a sequence alone."""

    def run(self, steps: Steps) -> dict[int, Logits]:
        """Append tokens to sequences, at least one to each; logits [vocabulary] behind the last of each.

        A sequence's logits do not depend on the others that run, up to rounding in the last bits.
        """


@runtime_checkable
class Embedding(Protocol):
    """A running batch that also gives hidden states of whole sequences, apart from those in it; from any thread.

    Attributes:
        embeds: whether this model does.
    """

    @property
    def embeds(self) -> bool: ...

    def states(self, sequences: Prompts) -> Logits:
        """Last hidden states, float32 [sequences, longest, width]; what lies behind a sequence may be anything."""


def shared(held: Sequence[int], prompt: Sequence[int]) -> int:
    """Tokens that both begin with; the last one of a prompt is always run, for its logits are wanted."""
    most = min(len(held), len(prompt) - 1)
    return next((i for i in range(most) if held[i] != prompt[i]), most)
