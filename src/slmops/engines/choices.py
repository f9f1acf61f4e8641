"""Choices that share their beginnings, as a tree: what is common to several is run once.

How likely a choice is: at each place only a token may follow that a choice goes on with, and it has its share of what
these tokens have together (constrained decoding). So where all choices go on alike there is nothing to find out, and
what is run is only what leads to places where they part.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import numpy as np

from slmops.engines.base import Logits, Prompts
from slmops.engines.decoding import check
from slmops.errors import BadInput

_NEGLIGIBLE = math.log(1e-3)
"""What choices may have together, and not be told apart."""


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

    @property
    def parts(self) -> bool:
        """Whether choices go on differently."""
        return any(token != self.steps[0][1] for _, token in self.steps)

    def shares(self, logits: Logits) -> tuple[list[int], Logits]:
        """The choices that go on here, and the logarithm of what each one's next token has among those of all.

        Args:
            logits: [vocabulary], behind `path`.
        """
        through, tokens = map(list, zip(*self.steps, strict=True))
        return through, logits[tokens] - np.logaddexp.reduce(logits[sorted(set(tokens))])


def tree(choices: Prompts) -> list[Node]:
    """The beginnings at or behind which choices part, each behind the one it goes on from; the root first, in any case.

    Raises:
        BadInput: there are no choices, one is empty, or one is what another begins with.
    """
    if not choices or not all(choices):
        raise BadInput("choices must be given, each of at least one token")
    nodes: dict[tuple[int, ...], Node] = {}
    for choice, tokens in enumerate(choices):
        for depth, token in enumerate(tokens):
            path = tuple(tokens[:depth])
            nodes.setdefault(path, Node(path)).steps.append((choice, token))
    for choice, tokens in enumerate(choices):
        if tuple(tokens) in nodes or choices.index(tokens) < choice:
            raise BadInput(f"choice {choice} is what another begins with", hint="end each with a token that ends it")
    needed = {path[:depth] for path, node in nodes.items() if node.parts for depth in range(len(path) + 1)} | {()}
    kept = [node for path, node in sorted(nodes.items(), key=lambda pair: len(pair[0])) if path in needed]
    places = {node.path: index for index, node in enumerate(kept)}
    for node in kept[1:]:
        kept[places[node.path[:-1]]].children.append(places[node.path])
    return kept


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

    The likeliest beginnings are run first. What a beginning has is what all choices that begin so have together; so
    when those that are left have less than a thousandth, they are not run, and their choices get even shares of it.

    Yields:
        A path to run; for it are sent the logits [vocabulary] behind its last token.
    """
    total = np.zeros(choices, dtype=np.float32)
    waiting = [(0.0, 0)]
    while waiting and np.logaddexp.reduce([-behind for behind, _ in waiting]) > _NEGLIGIBLE:
        node = nodes[heapq.heappop(waiting)[1]]
        while not node.parts and node.children:
            node = nodes[node.children[0]]
        through, shares = node.shares((yield node.path))
        total[through] += shares
        for child in node.children:
            heapq.heappush(waiting, (-float(total[nodes[child].steps[0][0]]), child))
    for _, left in waiting:
        through = [choice for choice, _ in nodes[left].steps]
        total[through] -= np.log(len(through))
    return total


def one_by_one(run: Callable[[Prompts], Logits], prompts: Prompts, choices: Prompts) -> Logits:
    """Log-likelihoods [prompts, choices] by a model that cannot share beginnings.

    Args:
        run: gives the logits [sequences, tokens, vocabulary] of whole sequences.
    """
    nodes, rows = tree(choices), []
    for prompt in prompts:

        def behind(path: tuple[int, ...], prompt: Sequence[int] = prompt) -> Logits:
            logits: Logits = run([[*prompt, *path]])[0, -1]
            return logits

        rows.append(search(nodes, len(choices), behind))
    return np.array(rows, dtype=np.float32).reshape(len(prompts), len(choices))
