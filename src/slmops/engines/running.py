"""A batch that requests join and leave while it runs: what a server drives an engine by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from slmops.engines.base import Logits, Prompts
from slmops.errors import BadInput

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

    def begin(self, slot: int, prompt: Sequence[int], adapter: Any = None) -> int:
        """Give a slot to a new sequence, in place of what it held; nothing is run yet.

        What the sequence has in common with one of the same adapter that a slot holds, or held last, is taken over
        from there.

        Args:
            prompt: checked by `slmops.engines.decoding.check`.
            adapter: what `Adapting.load_adapter` gave; None runs the base. It must live for as long as the sequence.

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


@runtime_checkable
class Adapting(Protocol):
    """A running batch whose sequences may have an adapter each, different ones in one batch.

    Attributes:
        adapts: whether this model does.
    """

    @property
    def adapts(self) -> bool: ...

    def load_adapter(self, path: Path) -> Any:
        """An adapter, to begin sequences with; it is given up when nobody refers to it. From any thread, one at a time.

        Args:
            path: as of `slmops.engines.base.Adaptable.adapted`.

        Raises:
            BadInput: it cannot be read, or does not fit the model.
        """


def no_adapter(adapter: Any, runtime: str) -> None:
    """Refuse one where there can be none.

    Raises:
        BadInput: there is one.
    """
    if adapter is not None:
        raise BadInput(f"{runtime} runs no adapters", hint="merge it, or ship the model for onnxruntime-genai")


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
