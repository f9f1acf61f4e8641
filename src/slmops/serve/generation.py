"""A job that writes an answer, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from slmops.engines.base import Logits, Sampling, Top
from slmops.engines.sampling import Sampler, top
from slmops.models.tokenizer import Tokenizer
from slmops.serve.guessing import Guesser
from slmops.serve.job import Ended, Move
from slmops.serve.writing import Writing


class Constraint(Protocol):
    """What an answer may be, token by token: the state of one answer."""

    def allow(self, logits: Logits) -> Logits:
        """`logits` [vocabulary] with -inf for every token that may not come next."""

    def accept(self, token: int) -> None:
        """`token` was written."""


@dataclass(frozen=True)
class Piece:
    """What came with one token of an answer.

    Attributes:
        text: that can be sent now; empty while a character or a stop string may be unfinished.
        token: None where the answer ends without one.
        log_prob: of the token under the whole softmax, where log-probabilities are wanted.
        ended: set on the last piece.
    """

    text: str
    token: int | None = None
    log_prob: float | None = None
    top: Top | None = None
    ended: Ended | None = None


Deliver = Callable[[Piece], None]
"""Takes the pieces of an answer in their order, and returns at once."""


class Generation:
    """One answer to one prompt; see `slmops.serve.job.Job`."""

    def __init__(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        deliver: Deliver,
        tokenizer: Tokenizer,
        *,
        stops: Sequence[str] = (),
        tops: int | None = None,
        constraint: Constraint | None = None,
        guesser: Guesser | None = None,
    ) -> None:
        """
        Args:
            prompt: checked against the model; `sampling.max_tokens` have room behind it.
            stops: strings that end the answer, and are no part of it.
            tops: how many of the most likely tokens go with each token; None for no log-probabilities at all.
            guesser: makes it faster, and nothing else.
        """
        self.prompt, self.written = prompt, 0
        self._sampling, self._deliver, self._end_ids = sampling, deliver, tokenizer.end_ids
        self._sampler = Sampler(sampling, [prompt])
        self._writing = Writing(tokenizer.stream(), stops)
        self._tops, self._constraint = tops, constraint
        self._guesser, self._guesses = guesser, list[int]()

    def go_on(self, logits: Logits) -> Move | Ended:
        """See `Job.go_on`. A guess that was right has its logits already."""
        for guess, behind in zip([*self._guesses[: len(logits) - 1], None], logits, strict=True):
            token, ended = self._write(behind)
            if ended:
                return ended
            if token != guess:
                break
        room = self._sampling.max_tokens - self.written - 1
        self._guesses = self._guesser.guess(room) if self._guesser else []
        return Move(len(self.prompt) + self.written - 1, [token], self._guesses)

    def _write(self, logits: Logits) -> tuple[int, Ended | None]:
        """One more token, by the logits [vocabulary] behind the one before; and whether that is all."""
        allowed = self._constraint.allow(logits) if self._constraint else logits
        token = self._sampler.choose(0, allowed)
        if self._constraint:
            self._constraint.accept(token)
        if self._guesser:
            self._guesser.said(token)
        self.written += 1
        text, ended = self._told(token)
        self._deliver(Piece(text, token, *self._likelihood(logits, token), ended))
        return token, ended

    def stop(self, ended: Ended) -> None:
        """See `Job.stop`."""
        self._deliver(Piece("", ended=ended))

    def _told(self, token: int) -> tuple[str, Ended | None]:
        """What can be sent, and whether that is all."""
        if token in self._end_ids:
            return self._writing.end(), "stop"
        text = self._writing.feed(token)
        if not self._writing.stopped and self.written == self._sampling.max_tokens:
            text += self._writing.end()
            return text, "stop" if self._writing.stopped else "length"
        return text, "stop" if self._writing.stopped else None

    def _likelihood(self, logits: Logits, token: int) -> tuple[float | None, Top | None]:
        """The log-probability of `token`, and the most likely tokens, where any are wanted."""
        if self._tops is None:
            return None, None
        above = logits - logits.max()
        own = float(above[token] - np.log(np.exp(above).sum()))
        return own, top(logits, self._tops) if self._tops else None
