"""Choices that share their beginnings, as a tree: what is common to several is run once.

The log-likelihood of a choice is the sum of its tokens' log-probabilities, and each of these is read off the logits of
the token before. So a choice's last token is never run, and tokens that several choices begin with are run once.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import numpy as np

from slmops.engines.base import Logits, Prompts
from slmops.engines.decoding import check
from slmops.errors import BadInput

_NEGLIGIBLE = 20.0
"""Natural logs below the best choice: a share of 2e-9."""


@dataclass
class Node:
    """A beginning of choices; the root is the end of the prompt.

    Attributes:
        path: tokens from the prompt's end to here.
        steps: of every choice that goes on here: its index, and its next token.
        children: indices of the nodes one token further.
    """

    path: tuple[int, ...]
    steps: list[tuple[int, int]] = field(default_factory=list)
    children: list[int] = field(default_factory=list)


def tree(choices: Prompts) -> list[Node]:
    """The beginnings that have something after them, each behind the one it goes on from; the root first.

    Raises:
        BadInput: there are no choices, or one is empty.
    """
    if not choices or not all(choices):
        raise BadInput("choices must be given, each of at least one token")
    nodes = [Node(())]
    known: dict[tuple[int, ...], int] = {(): 0}
    for choice, tokens in enumerate(choices):
        at = 0
        for depth, token in enumerate(tokens):
            path = tuple(tokens[:depth])
            if path not in known:
                known[path] = len(nodes)
                nodes[at].children.append(len(nodes))
                nodes.append(Node(path))
            at = known[path]
            nodes[at].steps.append((choice, token))
    return nodes


def check_choices(prompts: Prompts, choices: Prompts, *, vocabulary: int, context: int) -> None:
    """Refuse prompts and choices that a model cannot take; every choice follows every prompt.

    Raises:
        BadInput: see `check`.
    """
    longest = max(choices, key=len)
    check(prompts, vocabulary=vocabulary, context=context, continuations=[longest] * len(prompts))
    # Any prompt of one token will do to look at the choices.
    check([(0,)] * len(choices), vocabulary=vocabulary, context=context, continuations=choices)


def common_prefix(prompts: Prompts) -> int:
    """How many tokens all prompts begin with; at least one token of each is left."""
    first, most = prompts[0], min(map(len, prompts)) - 1
    return next((i for i in range(most) if any(prompt[i] != first[i] for prompt in prompts)), most)


def search(nodes: Sequence[Node], choices: int, run: Callable[[tuple[int, ...]], Logits]) -> Logits:
    """`searching`, with `run` for whoever gives the logits."""
    steps = searching(nodes, choices)
    try:
        path = next(steps)
        while True:
            path = steps.send(run(path))
    except StopIteration as end:
        total: Logits = end.value
        return total


def searching(nodes: Sequence[Node], choices: int) -> Generator[tuple[int, ...], Logits, Logits]:
    """Log-likelihoods of all choices [choices] of one prompt, for a runtime that takes one path at a time.

    The likeliest beginnings are run first. What a choice has after some tokens bounds what it can have in the end, so
    beginnings that are hopelessly behind the best whole choice are not run: their choices keep that bound, which is at
    least 20 natural logs below the best.

    Yields:
        A path to run; for it are sent the logits [1 + len(path), vocabulary] at the prompt's end and after each of its
        tokens.
    """
    total = np.zeros(choices, dtype=np.float32)
    whole = {choice: sum(choice == one for node in nodes for one, _ in node.steps) for choice in range(choices)}
    best = -np.inf
    waiting = [(0.0, 0)]
    while waiting and -waiting[0][0] > best - _NEGLIGIBLE:
        chain = [heapq.heappop(waiting)[1]]
        # One call with several tokens is cheaper than several calls.
        while len(nodes[chain[-1]].children) == 1:
            chain += nodes[chain[-1]].children
        logits = yield nodes[chain[-1]].path
        for index in chain:
            at = logits[len(nodes[index].path)]
            largest = at.max()
            normaliser = largest + np.log(np.exp(at - largest).sum())
            for choice, token in nodes[index].steps:
                total[choice] += at[token] - normaliser
                whole[choice] -= 1
                best = best if whole[choice] else max(best, float(total[choice]))
        for child in nodes[chain[-1]].children:
            heapq.heappush(waiting, (-float(total[nodes[child].steps[0][0]]), child))
    return total


def one_by_one(score: Callable[[Prompts, Prompts], list[Logits]], prompts: Prompts, choices: Prompts) -> Logits:
    """Log-likelihoods [prompts, choices] from whole sequences, for a model that cannot share beginnings."""
    pairs = [(prompt, choice) for prompt in prompts for choice in choices]
    scores = score([prompt for prompt, _ in pairs], [choice for _, choice in pairs])
    return np.array([each.sum() for each in scores], dtype=np.float32).reshape(len(prompts), len(choices))
