"""Models that label: the answer to a request is read off its own tokens in one forward pass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from slmops.engines.base import EngineInfo, Finish, Logits, Prompts, Sampling, Token, Top
from slmops.engines.decoding import check
from slmops.engines.reading import Reader, Reading
from slmops.errors import BadInput
from slmops.models.tag_files import WEIGHTS, read_tags
from slmops.models.tokenizer import Tokenizer
from slmops.tasks.marking import Marking

MOST_TOKENS = 2048
"""Run through the model together, padding included: more is no faster on a processor."""

_NEVER = np.float32(-1e30)


class Body(Protocol):
    """A model below its head."""

    vocabulary: int

    def states(self, sequences: Prompts) -> Logits:
        """Last hidden states, float32 [sequences, longest, width]; what lies behind a sequence may be anything."""

    def info(self) -> EngineInfo:
        """Without the head that labels."""


class TaggingEngine:
    """A body, the head that labels its states, and what the labels mean.

    It writes through the protocol of engines: an answer's tokens come all at once, the first with the probability of
    the whole answer, the others being certain then. There is no other answer to draw, whatever the temperature.

    Attributes:
        body: the model below the head.
    """

    def __init__(self, body: Body, folder: Path) -> None:
        """Put the head in `folder` upon `body`."""
        tensors = load_file(folder / WEIGHTS)
        task = read_tags(folder)["task"]
        self.body, self._matrix, self._bias = body, tensors["matrix"], tensors["bias"]
        self._tokenizer = Tokenizer.load(folder)
        self._reader = Reader(task, self._tokenizer)
        self._end = min(self._tokenizer.end_ids)
        self._head_bytes = (folder / WEIGHTS).stat().st_size

    def reading(self, prompt: Sequence[int]) -> Reading:
        """How a request is read: what the body is to run, and what is read off it.

        Raises:
            BadInput: it is no request of the model's task, or too long.
        """
        check([prompt], vocabulary=self.body.vocabulary, context=self.info().context_tokens)
        reading = self._reader.reading(prompt)
        check([reading.ids], vocabulary=self.body.vocabulary, context=self.body.info().context_tokens)
        return reading

    def read(self, reading: Reading, states: Logits) -> str:
        """The most likely answer, as any model of the task would write it.

        Args:
            states: last hidden states of `reading.ids`, float32 [tokens or more, width].
        """
        return self._read(reading, states)[0]

    def generate(self, prompts: Prompts, sampling: Sampling, *, top_logits: int = 0) -> Iterator[Token]:
        """See `Engine.generate`."""
        for row, reading, states in self._states(prompts):
            text, log_prob = self._read(reading, states)
            yield from self._written(row, text, log_prob, sampling.max_tokens, top_logits)

    def labels(self, prompts: Prompts) -> list[list[Top]]:
        """All labels of each place that is read, the most likely first, with their log-probabilities.

        The places are the message's tokens, where values can stand in it, then one for each field with options. Labels
        are numbered as in `Marking`.

        Raises:
            BadInput: as `generate`.
        """
        found: list[list[Top]] = [[] for _ in prompts]
        first = np.cumsum([0, *self._reader.marking.sizes])
        for row, reading, states in self._states(prompts):
            tokens, options = self._log_probs(reading, states)
            for group, places in enumerate([tokens, *(option[None] for option in options)]):
                if group == 0 and self._reader.choices is not None:
                    continue
                orders = np.argsort(-places, axis=-1, kind="stable")
                found[row] += [
                    ((order + first[group]).astype(np.int32), place[order])
                    for order, place in zip(orders, places, strict=True)
                ]
        return found

    def score(self, prompts: Prompts, continuations: Prompts) -> list[Logits]:  # noqa: ARG002
        """Refused: such a model knows one answer to a request, and no text beside it.

        Raises:
            BadInput: always.
        """
        raise BadInput("a model that labels cannot score texts", hint="use a student with student.head: language")

    def score_top(self, prompts: Prompts, continuations: Prompts, *, top_logits: int) -> list[Top]:  # noqa: ARG002
        """Refused, as `score` is."""
        raise BadInput("a model that labels cannot score texts", hint="use a student with student.head: language")

    def score_choices(self, prompts: Prompts, choices: Prompts) -> Logits:
        """See `Engine.score_choices`. The choices can be the labels of the model's task alone, which it has one
        distribution over: a forward pass gives all of them.

        Raises:
            BadInput: the answers of the task have fields, or a choice is none of its labels; or as `generate`.
        """
        labels, task = self._reader.choices, self._reader.task
        if labels is None:
            raise BadInput("a model that labels cannot score texts", hint="use a student with student.head: language")
        wanted = [task.parse(self._tokenizer.decode(choice)) for choice in choices]
        if odd := [choice for choice in wanted if choice not in labels]:
            raise BadInput(f"this model knows the labels of its task alone: {getattr(odd[0], 'reason', odd[0])}")
        order = [labels.index(choice) for choice in wanted]
        found = np.empty((len(prompts), len(choices)), dtype=np.float32)
        for row, reading, states in self._states(prompts):
            found[row] = self.weigh(reading, states)[order]
        return found

    def weigh(self, reading: Reading, states: Logits) -> Logits:
        """The log-probability of every label of a classification, float32 [labels], in the task's order.

        Args:
            states: as of `read`.
        """
        return self._log_probs(reading, states)[1][0]

    def info(self) -> EngineInfo:
        """See `Engine.info`. As messages are read twice, a request may have half of what the body can read."""
        body = self.body.info()
        return replace(
            body,
            parameters=body.parameters + self._matrix.size + self._bias.size,
            weights_bytes=body.weights_bytes + self._head_bytes,
            context_tokens=(body.context_tokens - len(self._reader.marking.options)) // 2,
        )

    def _states(self, prompts: Prompts) -> Iterator[tuple[int, Reading, Logits]]:
        """Each request's number, its reading and the last hidden states of that [longest of its batch, width]."""
        check(prompts, vocabulary=self.body.vocabulary, context=self.info().context_tokens)
        readings = [self._reader.reading(prompt) for prompt in prompts]
        body = self.body.info().context_tokens
        check([reading.ids for reading in readings], vocabulary=self.body.vocabulary, context=body)
        for rows in alike([reading.ids for reading in readings]):
            states = self.body.states([readings[row].ids for row in rows])
            yield from zip(rows, (readings[row] for row in rows), states, strict=True)

    def _log_probs(self, reading: Reading, states: Logits) -> tuple[Logits, list[Logits]]:
        """Of the labels of the message's tokens [tokens, labels], and of the options of each field [options].

        See `TagHead.read` for what the ends say.
        """
        start = len(reading.prompt)
        scores = states[start : start + len(reading.again)] @ self._matrix.T + self._bias
        tokens = len(reading.places)
        scores[tokens:] = np.logaddexp(np.logaddexp.reduce(scores[:tokens], axis=0), scores[tokens:])
        first, *others = np.split(scores, np.cumsum(self._reader.marking.sizes)[:-1], axis=-1)
        return _log_softmax(first[:tokens]), [_log_softmax(group[tokens + i]) for i, group in enumerate(others)]

    def _read(self, reading: Reading, states: Logits) -> tuple[str, float]:
        """The most likely answer and its log-probability."""
        tokens, options = self._log_probs(reading, states)
        spans, log_prob = best_spans(self._reader.marking, tokens)
        log_prob += sum(float(option.max()) for option in options)
        return self._reader.answer(reading, spans, [int(option.argmax()) for option in options]), log_prob

    def _written(self, row: int, text: str, log_prob: float, limit: int, top: int) -> Iterator[Token]:
        ids = [*self._tokenizer.encode(text), self._end]
        last = min(len(ids), limit) - 1
        for i, id in enumerate(islice(ids, limit)):
            finish: Finish | None = None if i < last else "stop" if last == len(ids) - 1 else "length"
            first = log_prob if i == 0 else 0.0
            chances = (np.array([id], dtype=np.int32), np.array([first], dtype=np.float32)) if top else None
            yield Token(row, id, finish, chances)


def best_spans(marking: Marking, log_probs: Logits) -> tuple[list[tuple[str, int, int]], float]:
    """The most likely labels of a text's tokens in which values are whole, as values and their log-probability.

    A value goes on only where it has begun (Viterbi 1967, over the labels of `Marking`). Of a field's several values
    the surest is taken, that of the highest mean log-probability per token.

    Args:
        log_probs: float32 [tokens, labels of the tokens' group].

    Returns:
        Field, first token and the token behind the last of each value; and the sum of the labels' log-probabilities.
    """
    tokens, labels = log_probs.shape
    if not tokens:
        return [], 0.0
    allowed = _allowed(labels)
    # A text begins as if outside of every value.
    total, back = log_probs[0] + allowed[0], np.zeros((tokens, labels), dtype=np.int64)
    for i in range(1, tokens):
        reached = total[:, None] + allowed
        back[i] = reached.argmax(0)
        total = reached.max(0) + log_probs[i]
    path = [int(total.argmax())]
    for i in range(tokens - 1, 0, -1):
        path.append(int(back[i, path[-1]]))
    path.reverse()
    surest: dict[str, tuple[float, int, int]] = {}
    names = list(marking.copied)
    for start, end in _runs(path):
        name, sure = names[(path[start] - 1) // 2], float(log_probs[range(start, end), path[start:end]].mean())
        surest[name] = max(surest.get(name, (-math.inf, 0, 0)), (sure, start, end))
    return [(name, start, end) for name, (_, start, end) in surest.items()], float(total.max())


def _allowed(labels: int) -> Logits:
    """What a step from one label to another adds, [from, to]: nothing, or too much to be taken.

    Odd labels begin a value; the even one behind each goes on with it.
    """
    steps = np.zeros((labels, labels), dtype=np.float32)
    for inside in range(2, labels, 2):
        steps[:, inside] = _NEVER
        steps[inside - 1 : inside + 1, inside] = 0
    return steps


def _runs(path: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and behind the last token of each value."""
    start = None
    for i, label in enumerate([*path, 0]):
        if start is not None and (label == 0 or label % 2):
            yield start, i
            start = None
        if label % 2:
            start = i


def alike(sequences: Prompts) -> Iterator[list[int]]:
    """Numbers of sequences that are run together: those of like length, as many as are fast."""
    order = sorted(range(len(sequences)), key=lambda row: len(sequences[row]))
    while order:
        fit = 1
        while fit < len(order) and (fit + 1) * len(sequences[order[fit]]) <= MOST_TOKENS:
            fit += 1
        yield order[:fit]
        order = order[fit:]


def _log_softmax(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    shifted = scores - scores.max(-1, keepdims=True)
    logs: npt.NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return logs
