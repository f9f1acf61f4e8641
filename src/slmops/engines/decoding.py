"""The loop from prompts to tokens that every engine shares; an engine adds only its forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from slmops.engines.base import Finish, Logits, Prompts, Sampling, Token, Top
from slmops.engines.sampling import Sampler, top
from slmops.errors import BadInput

_WORTH_SHRINKING = 0.75
"""A batch shrinks when no more than this share of it is still running: to shrink copies the cache."""


class Batch(Protocol):
    """Requests in flight on a runtime."""

    def logits(self) -> Logits:
        """For the next token, [requests, vocabulary]."""

    def advance(self, ids: Sequence[int]) -> None:
        """Append one token to each request and run the model."""

    def keep(self, rows: Sequence[int]) -> bool:
        """Go on with these requests alone, in this order; false where the runtime cannot give up the others."""


Start = Callable[[Prompts, int], Batch]
"""Reads prompts of any lengths and makes room for a number of further tokens each."""

MAX_REQUESTS = 32
"""Run together; onnxruntime-genai takes no more."""

MAX_LOGITS = 64_000_000
"""Written by one forward pass over prompts, about: 256 MB. A runtime may write the logits of every prompt token."""

MAX_SCORED = 4_000_000
"""The same where logits are only read off: 16 MB. Larger passes take memory that a small device lacks, and the runtimes
that ship are no faster by them: rows of other lengths are padded."""


def decode(
    start: Start,
    prompts: Prompts,
    sampling: Sampling,
    *,
    end_ids: frozenset[int],
    vocabulary: int,
    context: int,
    top_logits: int,
) -> Iterator[Token]:
    """Write every request up to an end token, `sampling.max_tokens` or the end of the context.

    Args:
        prompts: checked by `check`.
        vocabulary: tokens that there are.
        context: tokens that a prompt and its answer may have together.
        top_logits: how many of the largest logits go with each token; 0 for none.
    """
    sampler = Sampler(sampling, prompts)
    room = [min(sampling.max_tokens, context - len(prompt)) for prompt in prompts]
    for group in _groups(prompts, room, vocabulary, context):
        running = dict.fromkeys(group, 0)
        batch = start([prompts[request] for request in group], max(room[request] for request in group))
        while running:
            logits = batch.logits()
            # A request that has finished rides along with any token until it can be given up.
            ids = [0] * len(group)
            for row, request in enumerate(group):
                if request not in running:
                    continue
                ids[row] = id = sampler.choose(request, logits[row])
                running[request] += 1
                finish: Finish | None = None
                if id in end_ids:
                    finish = "stop"
                elif running[request] == room[request]:
                    finish = "length"
                if finish:
                    del running[request]
                yield Token(request, id, finish, top(logits[row], top_logits) if top_logits else None)
            if len(running) <= _WORTH_SHRINKING * len(group) and running:
                rows = [row for row, request in enumerate(group) if request in running]
                if batch.keep(rows):
                    group, ids = [group[row] for row in rows], [ids[row] for row in rows]
            if running:
                batch.advance(ids)


Forward = Callable[[Prompts], Logits]
"""Logits of whole sequences, padded on the right: [sequences, longest, vocabulary]."""


def score(forward: Forward, prompts: Prompts, continuations: Prompts, *, vocabulary: int) -> list[Logits]:
    """Log-probability of each continuation token, one array per request.

    Args:
        prompts, continuations: checked by `check`.
    """
    places = _places(forward, prompts, continuations, vocabulary)
    return [_log_probabilities(logits, ids) for logits, ids in zip(places, continuations, strict=True)]


def score_top(
    forward: Forward, prompts: Prompts, continuations: Prompts, *, vocabulary: int, top_logits: int
) -> list[Top]:
    """The most likely tokens at each place of the continuations; see `Engine.score_top`."""
    return [_tops(logits, top_logits) for logits in _places(forward, prompts, continuations, vocabulary)]


def _places(forward: Forward, prompts: Prompts, continuations: Prompts, vocabulary: int) -> Iterator[Logits]:
    """The logits for each token of each continuation, [its tokens, vocabulary]."""
    sequences = [[*prompt, *continuation] for prompt, continuation in zip(prompts, continuations, strict=True)]
    fitting = MAX_SCORED // (vocabulary * max(map(len, sequences), default=1))
    rows = min(max(1, fitting), MAX_REQUESTS)
    for begin in range(0, len(sequences), rows):
        logits = forward(sequences[begin : begin + rows])
        for row, request in enumerate(range(begin, min(begin + rows, len(sequences)))):
            # The logits at a place are for the token after it.
            yield logits[row, len(prompts[request]) - 1 : len(sequences[request]) - 1]


def _tops(logits: Logits, k: int) -> Top:
    """Of every place of `logits` [n, vocabulary]."""
    tops = [top(place, k) for place in logits]
    shape = (len(tops), min(k, logits.shape[1]))
    ids = np.array([ids for ids, _ in tops], dtype=np.int32).reshape(shape)
    return ids, np.array([log_probs for _, log_probs in tops], dtype=np.float32).reshape(shape)


def _log_probabilities(logits: Logits, ids: Sequence[int]) -> Logits:
    """Of `ids` [n] under `logits` [n, vocabulary]."""
    largest = logits.max(axis=1, keepdims=True, initial=-np.inf)
    normaliser = largest[:, 0] + np.log(np.exp(logits - largest).sum(axis=1))
    chosen: Logits = logits[np.arange(len(ids)), np.asarray(ids, dtype=np.int64)] - normaliser
    return chosen


def in_rows(logits: Logits, sequences: Prompts) -> Logits:
    """Logits [tokens, vocabulary] of all sequences, one behind the other, as [sequences, longest, vocabulary]."""
    padded = np.zeros((len(sequences), max(map(len, sequences)), logits.shape[1]), dtype=np.float32)
    begin = 0
    for row, ids in enumerate(sequences):
        padded[row, : len(ids)] = logits[begin : begin + len(ids)]
        begin += len(ids)
    return padded


def check(prompts: Prompts, *, vocabulary: int, context: int, continuations: Prompts | None = None) -> None:
    """Refuse requests that a model cannot take.

    Raises:
        BadInput: a prompt is empty, a request is longer than `context` tokens (an answer needs at least one),
            or an id is outside the vocabulary.
    """
    # Of an answer that is still to be written, one token must have room.
    answers = [(0,)] * len(prompts) if continuations is None else continuations
    if len(answers) != len(prompts):
        raise BadInput(f"{len(prompts)} prompts do not go with {len(answers)} continuations")
    for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        if not prompt:
            raise BadInput(f"prompt {index} is empty")
        if len(prompt) + len(answer) > context:
            raise BadInput(
                f"prompt {index} has {len(prompt)} tokens; with its answer it does not fit into a context of {context}",
                hint="shorten the text",
            )
        if outside := [id for id in (*prompt, *answer) if not 0 <= id < vocabulary]:
            raise BadInput(f"prompt {index} holds token {outside[0]}; the vocabulary ends at {vocabulary - 1}")


def _groups(prompts: Prompts, room: Sequence[int], vocabulary: int, context: int) -> Iterator[list[int]]:
    """Requests of similar length together, as many as a batch, the memory and the padded context take."""
    group: list[int] = []
    longest = steps = 0
    for request in sorted(range(len(prompts)), key=lambda request: len(prompts[request])):
        longest, steps = len(prompts[request]), max(steps, room[request])
        size = len(group) + 1
        fits = size <= MAX_REQUESTS and size * longest * vocabulary <= MAX_LOGITS and longest + steps <= context
        if group and not fits:
            yield sorted(group)
            group, steps = [], room[request]
        group.append(request)
    if group:
        yield sorted(group)
