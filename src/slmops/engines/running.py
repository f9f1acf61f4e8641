"""A batch that requests join and leave while it runs: what a server drives an engine by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from slmops.engines.base import Logits, Prompts

Steps = Mapping[int, Sequence[int]]
"""Slots, and the tokens that are appended to the sequence of each."""

NO_GUESSES: Mapping[int, int] = {}


class Running(Protocol):
    """Sequences of one loaded model, each in a slot of its own. Not safe for use by several threads at once.

    Attributes:
        slots: sequences at a time; they are numbered from 0.
        room: tokens that a sequence may have.
        vocabulary: tokens that there are.
        guessing: sequences at most whose next tokens are worth guessing at the same time: several tokens of each must
            be run in little more time than one.
        guess_tokens: of such a sequence, at a time.
    """

    slots: int
    room: int
    vocabulary: int
    guessing: int
    guess_tokens: int

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

    def run(self, steps: Steps, guesses: Mapping[int, int] = NO_GUESSES) -> dict[int, Logits]:
        """Append tokens to sequences, at least one to each.

        A sequence's logits do not depend on the others that run, up to rounding in the last bits.

        Args:
            guesses: of a slot's tokens the last so many are guesses, all but one at most.

        Returns:
            Logits [1 + guesses, vocabulary] of each slot: behind the token before its guesses, and behind each guess.
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


def beginning(held: Sequence[Sequence[int]], slot: int, prompt: Sequence[int]) -> tuple[int, int]:
    """Where the most is of what `prompt` begins with, `slot` itself before others, and how many tokens that is."""
    found = [_shared(one, prompt) for one in held]
    source = max(range(len(held)), key=lambda other: (found[other], other == slot))
    return source, found[source]


def by_slot(steps: Steps, guesses: Mapping[int, int], logits: Logits) -> dict[int, Logits]:
    """What `Running.run` gives, of one array that has the wanted logits of all slots, one behind the other."""
    ends = np.cumsum([1 + guesses.get(slot, 0) for slot in steps])[:-1]
    return dict(zip(steps, np.split(logits, ends), strict=True))


def _shared(held: Sequence[int], prompt: Sequence[int]) -> int:
    """Tokens that both begin with; the last one of a prompt is always run, for its logits are wanted."""
    most = min(len(held), len(prompt) - 1)
    return next((i for i in range(most) if held[i] != prompt[i]), most)
