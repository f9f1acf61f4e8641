"""What the serving benchmark asks: streams of requests of two kinds, and the same for every side."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice
from typing import Any

from _compress_subjects import SEED, Tuned

from slmops.tasks.base import Row

KINDS = ("short", "prefix")
"""Requests with nothing in common, and such as begin alike."""

SYSTEM = (
    "You read messages of customers and write down what they want, as one JSON object and nothing else. Take what is"
    " said from the message, word by word; what is not said is left out. Here is how others were written down.\n\n"
)

Streams = list[list[dict[str, Any]]]


def loads(model: Tuned, streams: Mapping[int, int], lengths: Sequence[int], prefix_tokens: int) -> dict[str, Streams]:
    """By name, e.g. `short_8`, the requests of each load.

    Args:
        streams: how many at a time, and how many requests each of them asks.
        lengths: tokens of answers; requests have them in turn.
        prefix_tokens: that requests of the second kind begin with, about. Every load has examples of its own, so that
            nobody knows them from the load before.
    """
    rng = random.Random(SEED)  # noqa: S311 - no secret
    found = {}
    for kind in KINDS:
        for count, requests in streams.items():
            rows = rng.sample(list(model.subject.train), len(model.subject.train)) + list(model.subject.test)
            prefix = _prefix(model, rows, prefix_tokens) if kind == "prefix" else []
            prompts = cycle([*prefix, *prompt] for prompt in model.prompts(rows[::-1]))
            tokens = cycle(rng.sample(list(lengths), len(lengths)))
            found[f"{kind}_{count}"] = [_stream(model, prompts, tokens, requests) for _ in range(count)]
    return found


def warm_up(model: Tuned, lengths: Sequence[int]) -> Streams:
    """Two requests at a time, which no load has."""
    tokens = cycle(lengths[:1])
    return [_stream(model, iter([model.tokenizer.encode(f"Good {when}, all is well.")]), tokens, 1) for when in _WHEN]


_WHEN = ("morning", "evening")


def _prefix(model: Tuned, rows: Sequence[Row], tokens: int) -> list[int]:
    """What a system message with examples has: whole rows with their answers, until there are enough tokens."""
    prefix = model.tokenizer.encode(SYSTEM)
    for text in model.texts(rows):
        if len(prefix) >= tokens:
            break
        prefix += text
    return prefix


def _stream(model: Tuned, prompts: Iterator[list[int]], tokens: Iterator[int], requests: int) -> list[dict[str, Any]]:
    return [
        {"prompt": prompt, "text": model.tokenizer.decode(prompt), "tokens": length}
        for prompt, length in zip(islice(prompts, requests), tokens, strict=False)
    ]


def label_loads(model: Tuned, streams: int, requests: int) -> Streams:
    """The first test rows, a part of them for each stream; a label may be as long as the task's longest answer."""
    rows, limit = list(model.subject.test[: streams * requests]), model.subject.task.max_answer_tokens
    asked = [
        {"prompt": prompt, "text": model.tokenizer.decode(prompt), "tokens": limit} for prompt in model.prompts(rows)
    ]
    return [asked[begin : begin + requests] for begin in range(0, len(asked), requests)]
