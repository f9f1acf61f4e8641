"""Guesses make an answer faster and never another one."""

from __future__ import annotations

import queue

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.bundle.phrases import Phrases
from slmops.engines import Sampling, load_running
from slmops.serve.generation import Generation, Piece
from slmops.serve.guessing import Guesser
from slmops.serve.scheduler import Scheduler
from tests.serve.conftest import Watched


class Quiet:
    def ended(self, _ticket, _ended) -> None: ...

    def stepped(self, **_counts) -> None: ...


@pytest.fixture(scope="module")
def alone(tiny_onnx):
    running = Watched(load_running("onnxruntime-genai", tiny_onnx, slots=1, threads=1))
    scheduler = Scheduler(running, Quiet(), queue=100)
    yield running, scheduler
    scheduler.close(0)


@pytest.fixture(scope="module")
def known(tiny):
    return Phrases.of(
        (tiny.prompt(text), tiny.tokenizer.encode(said)) for text, said in tiny.pairs.items() for _ in "123"
    )


def pieces(scheduler, prompt, tiny, guesser=None, **sampling) -> list[Piece]:
    told: queue.Queue[Piece] = queue.Queue()
    settings = Sampling(**{"max_tokens": 40} | sampling)
    scheduler.submit(Generation(prompt, settings, told.put, tiny.tokenizer, tops=2, guesser=guesser))
    found = [told.get(timeout=60)]
    while not found[-1].ended:
        found.append(told.get(timeout=60))
    return found


def test_an_answer_takes_fewer_steps_and_is_the_same(alone, known, tiny):
    running, scheduler = alone
    for text, said in tiny.pairs.items():
        prompt = tiny.prompt(text)
        plain = pieces(scheduler, prompt, tiny)
        before = len(running.steps)
        guessed = pieces(scheduler, prompt, tiny, Guesser(known, prompt, 4))
        assert len(running.steps) - before < 0.6 * len(plain)
        assert "".join(piece.text for piece in guessed) == said
        same(guessed, plain)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_drawn_by_chance_is_drawn_alike(alone, known, tiny, seed):
    """Most guesses are wrong at this temperature, and are taken back."""
    _, scheduler = alone
    prompt = tiny.prompt("Where is order 4711?")
    drawn = {"temperature": 1.2, "top_p": 0.95, "seed": seed}
    plain = pieces(scheduler, prompt, tiny, **drawn)
    same(pieces(scheduler, prompt, tiny, Guesser(known, prompt, 4), **drawn), plain)


def same(found: list[Piece], expected: list[Piece]) -> None:
    assert [(piece.text, piece.token, piece.ended) for piece in found] == [
        (piece.text, piece.token, piece.ended) for piece in expected
    ]
    np.testing.assert_allclose(
        [piece.log_prob for piece in found if piece.token is not None],
        [piece.log_prob for piece in expected if piece.token is not None],
        atol=1e-3,
    )


def test_one_that_guesses_leaves_the_others_of_a_batch_alone(tiny, tiny_onnx, known):
    """Where more write than guesses are worth it for, none are run."""
    running = Watched(load_running("onnxruntime-genai", tiny_onnx, slots=3, threads=1))
    scheduler = Scheduler(running, Quiet(), queue=10)
    queues = [queue.Queue() for _ in range(3)]
    for text, told in zip(tiny.pairs, queues, strict=False):
        prompt = tiny.prompt(text)
        guesser = Guesser(known, prompt, 4)
        scheduler.submit(Generation(prompt, Sampling(max_tokens=40), told.put, tiny.tokenizer, guesser=guesser))
    scheduler.close(60)
    for said, told in zip(tiny.pairs.values(), queues, strict=False):
        assert "".join(piece.text for piece in told.queue) == said
    assert all(max(step.values()) == 1 for step in running.steps if len(step) == 3 and min(step.values()) == 1)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=40), st.lists(st.integers(0, 5), max_size=20), st.integers(0, 9)
)
def test_guesses_are_few_and_are_forgotten(prompt, said, room):
    guesser, other = (Guesser(Phrases({}), prompt, 4) for _ in range(2))
    for token in said:
        guesser.said(token)
        other.said(token)
    first = guesser.guess(room)
    assert len(first) <= min(4, room)
    assert guesser.guess(room) == first
    assert other.guess(room) == first


def test_what_the_prompt_says_is_guessed_until_it_is_often_wrong():
    prompt = [1, 2, 3, 4, 5, 6, 9]
    guesser = Guesser(Phrases({}), prompt, 3)
    guesser.said(2)
    assert guesser.guess(9)[:1] == [3]
    for _ in range(12):
        guesser.said(2)
        guesser.guess(9)
    assert guesser.guess(9) == []
