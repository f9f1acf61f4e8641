"""Choices as a tree: every likelihood is found, and the search runs only what could still matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from slmops.engines.choices import common_prefix, one_by_one, search, tree
from slmops.errors import BadInput

VOCABULARY = 5
END = VOCABULARY - 1
CHOICES = st.lists(
    st.lists(st.integers(0, END - 1), max_size=4).map(lambda tokens: [*tokens, END]),
    min_size=1,
    max_size=8,
    unique_by=tuple,
)


def logits(path: tuple[int, ...]) -> np.ndarray:
    """Of a made-up model: a fixed random row for every path."""
    return np.random.default_rng([7, *path]).normal(0, 3, VOCABULARY).astype(np.float32)


def share(choice: list[int], choices: list[list[int]]) -> float:
    """The logarithm of what the choice has where nothing else may be written, token by token."""
    total = 0.0
    for depth, token in enumerate(choice):
        allowed = sorted({other[depth] for other in choices if other[:depth] == choice[:depth]})
        at = logits(tuple(choice[:depth]))
        total += float(at[token] - np.logaddexp.reduce(at[allowed]))
    return total


@given(CHOICES)
def test_the_tree_holds_what_leads_to_where_choices_part_and_nothing_else(choices):
    nodes = tree(choices)
    assert nodes[0].path == ()
    assert len({node.path for node in nodes}) == len(nodes)
    for node in nodes:
        through = {
            (c, tokens[len(node.path)]) for c, tokens in enumerate(choices) if node.path == (*tokens,)[: len(node.path)]
        }
        assert set(node.steps) == through
        assert all(nodes[child].path[:-1] == node.path for child in node.children)
        assert node.parts or node.children or node is nodes[0]
    firsts = {(*tokens,)[:depth] for tokens in choices for depth in range(len(tokens))}
    parting = {path for path in firsts if len({c[len(path)] for c in choices if (*c,)[: len(path)] == path}) > 1}
    assert parting == {node.path for node in nodes if node.parts}


@given(CHOICES)
def test_the_search_finds_the_shares_and_bounds_what_it_leaves(choices):
    ran: set[tuple[int, ...]] = set()

    def run(path: tuple[int, ...]) -> np.ndarray:
        ran.add(path)
        return logits(path)

    nodes = tree(choices)
    found, expected = search(nodes, len(choices), run), np.array([share(choice, choices) for choice in choices])
    parting = [node for node in nodes if node.parts]
    done = np.array([all(n.path in ran for n in parting if i in dict(n.steps)) for i in range(len(choices))])
    np.testing.assert_allclose(found[done], expected[done], atol=1e-4)
    assert np.exp(found).sum() == pytest.approx(1, abs=1e-5)
    assert np.exp(expected[~done]).sum() <= 1.001e-3
    assert done[expected.argmax()]


@given(CHOICES)
def test_whole_sequences_say_the_same(choices):
    def run(sequences):
        return np.stack([[logits((*tokens[1 : end + 1],)) for end in range(len(tokens))] for tokens in sequences])

    expected = search(tree(choices), len(choices), logits)
    np.testing.assert_array_equal(one_by_one(run, [[9], [8]], choices), [expected, expected])


def test_hopeless_beginnings_are_not_run_nor_where_nothing_parts():
    ran: list[tuple[int, ...]] = []

    def run(path: tuple[int, ...]) -> np.ndarray:
        ran.append(path)
        row = np.full(VOCABULARY, -100, dtype=np.float32)
        row[0] = 0  # the model is sure of token 0 everywhere
        return row

    found = search(tree([[0, 3, 3, 0], [0, 3, 3, 1], [1, 0], [1, 1], [2, 2]]), 5, run)
    assert found.argmax() == 0
    assert ran == [(), (0, 3, 3)], "the root and where the likely branch parts, nothing else"


@given(CHOICES)
def test_a_choice_that_another_begins_with_is_refused(choices):
    assume(len(choices[0]) > 1)
    with pytest.raises(BadInput, match=f"choice {len(choices)} is what another begins with"):
        tree([*choices, choices[0][:-1]])
    with pytest.raises(BadInput, match=f"choice {len(choices)} is what"):
        tree([*choices, choices[0]])


def test_a_common_prefix_leaves_a_token_of_each():
    assert common_prefix([[1, 2, 3], [1, 2, 4]]) == 2
    assert common_prefix([[1, 2], [1, 2, 4]]) == 1
    assert common_prefix([[1, 2, 3]]) == 2
    assert common_prefix([[5], [5]]) == 0
