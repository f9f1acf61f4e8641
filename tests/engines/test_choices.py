"""Choices as a tree: every likelihood is found, and the search runs only what could still matter."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from slmops.engines.choices import common_prefix, search, tree

VOCABULARY = 5
CHOICES = st.lists(
    st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=4), min_size=1, max_size=8, unique_by=tuple
)


def logits(path: tuple[int, ...]) -> np.ndarray:
    """Of a made-up model: a fixed random row for every path."""
    return np.random.default_rng([7, *path]).normal(0, 3, VOCABULARY).astype(np.float32)


def whole(choice: list[int]) -> float:
    total = 0.0
    for depth, token in enumerate(choice):
        at = logits(tuple(choice[:depth]))
        total += float(at[token] - np.logaddexp.reduce(at))
    return total


@given(CHOICES)
def test_the_tree_holds_every_step_once(choices):
    nodes = tree(choices)
    steps = sorted((choice, len(node.path), token) for node in nodes for choice, token in node.steps)
    assert steps == sorted((c, d, token) for c, tokens in enumerate(choices) for d, token in enumerate(tokens))
    assert len({node.path for node in nodes}) == len(nodes)
    for node in nodes:
        assert all(nodes[child].path[:-1] == node.path for child in node.children)


@given(CHOICES)
def test_the_search_finds_the_likelihoods(choices):
    def run(path: tuple[int, ...]) -> np.ndarray:
        return np.stack([logits(path[:depth]) for depth in range(len(path) + 1)])

    found, expected = search(tree(choices), len(choices), run), np.array([whole(choice) for choice in choices])
    best = expected.max()
    near = expected > best - 20
    np.testing.assert_allclose(found[near], expected[near], atol=1e-4)
    assert (found[~near] >= expected[~near] - 1e-4).all()
    assert (found[~near] <= best - 19.9).all()


def test_hopeless_beginnings_are_not_run():
    ran: list[tuple[int, ...]] = []

    def run(path: tuple[int, ...]) -> np.ndarray:
        ran.append(path)
        row = np.full(VOCABULARY, -100, dtype=np.float32)
        row[0] = 0  # the model is sure of token 0 everywhere
        return np.tile(row, (len(path) + 1, 1))

    found = search(tree([[0, 0], [1, 0], [1, 1], [2, 2]]), 4, run)
    assert found.argmax() == 0
    assert ran == [(), (0,)], "the root and the likely branch, nothing else"


def test_a_common_prefix_leaves_a_token_of_each():
    assert common_prefix([[1, 2, 3], [1, 2, 4]]) == 2
    assert common_prefix([[1, 2], [1, 2, 4]]) == 1
    assert common_prefix([[1, 2, 3]]) == 2
    assert common_prefix([[5], [5]]) == 0
