"""Both terms of spans against plain float64 arithmetic, and their gradients against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slmops.recipe import objective as recipe
from slmops.train.objectives.base import Spans, View
from slmops.train.objectives.make import make_terms, needs_of
from slmops.train.objectives.spans import MOST_OUTCOMES, sorted_distance

VOCABULARY, THEIRS = 9, 13
OF = [0, 0, 1, 2, 2, 2]
"""Three spans of two, one and three of the student's tokens."""

SEEDS = st.integers(0, 500)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def case(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The student's logits and tokens; the teacher's log-likelihood of each span, and its distribution at the begin."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(OF), VOCABULARY)) * 2
    target = rng.integers(0, VOCABULARY, len(OF))
    return logits, target, -rng.exponential(2.0, 3), np.log(softmax(rng.normal(size=(3, THEIRS)) * 2))


def view(
    logits: np.ndarray | torch.Tensor, target: np.ndarray, log_probs: np.ndarray, begins: np.ndarray, dtype: torch.dtype
) -> View:
    spans = Spans(torch.tensor(OF), torch.tensor(log_probs, dtype=dtype), torch.tensor(begins, dtype=dtype))
    logits = logits if isinstance(logits, torch.Tensor) else torch.tensor(logits, dtype=dtype)
    return View(logits, torch.tensor(target), stored_spans=spans, online_spans=spans)


def plain_span(logits: np.ndarray, target: np.ndarray, log_probs: np.ndarray, temperature: float) -> float:
    q = softmax(logits)[np.arange(len(target)), target]
    total = 0.0
    for span, likely in enumerate(np.exp(log_probs)):
        p = likely ** (1 / temperature)
        r = math.prod(q[i] for i in range(len(OF)) if OF[i] == span) ** (1 / temperature)
        total += p * math.log(p / r) + (1 - p) * math.log((1 - p) / (1 - r))
    return temperature * total / len(target)


def plain_uld(logits: np.ndarray, begins: np.ndarray) -> float:
    total = 0.0
    for span in range(3):
        q, p = sorted(softmax(logits[OF.index(span)]))[::-1], sorted(np.exp(begins[span]))[::-1]
        q = [*q, *[0.0] * (len(p) - len(q))]
        total += sum(abs(one - other) for one, other in zip(p, q, strict=True))
    return total / len(OF)


def loss(term: recipe.Term, *given_: object, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    (made,) = make_terms([term])
    return made.loss(view(*given_, dtype=dtype))


@given(SEEDS, st.sampled_from([1.0, 3.0, 100.0]), st.sampled_from(["stored", "online"]))
def test_the_likelihood_of_spans_is_that_of_plain_arithmetic(seed, temperature, logits):
    student, target, log_probs, begins = case(seed)
    term = recipe.SpanTerm(temperature=temperature, logits=logits)
    expected = plain_span(student, target, log_probs, temperature)
    assert float(loss(term, student, target, log_probs, begins)) == pytest.approx(expected, rel=1e-5, abs=1e-7)
    single = loss(term, student, target, log_probs, begins, dtype=torch.float32)
    assert float(single) == pytest.approx(expected, rel=1e-3, abs=1e-4)


@given(SEEDS, st.sampled_from(["stored", "online"]))
def test_the_distance_of_sorted_probabilities_is_that_of_plain_arithmetic(seed, logits):
    student, target, log_probs, begins = case(seed)
    value = loss(recipe.UldTerm(logits=logits), student, target, log_probs, begins)
    assert float(value) == pytest.approx(plain_uld(student, begins), rel=1e-9)


@pytest.mark.parametrize("term", [recipe.SpanTerm(temperature=t) for t in (1.0, 100.0)] + [recipe.UldTerm()], ids=str)
def test_gradients_are_those_of_finite_differences(term):
    student, target, log_probs, begins = case(7)
    logits = torch.tensor(student, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda moved: loss(term, moved, target, log_probs, begins), (logits,), eps=1e-6, atol=1e-6
    )


@given(SEEDS)
def test_a_student_that_gives_spans_the_teachers_likelihood_is_no_distance_away(seed):
    student, target, _, begins = case(seed)
    written = np.log(softmax(student)[np.arange(len(OF)), target])
    same = np.array([written[[i for i in range(len(OF)) if OF[i] == span]].sum() for span in range(3)])
    assert float(loss(recipe.SpanTerm(temperature=2.0), student, target, same, begins)) == pytest.approx(0, abs=1e-9)
    apart = loss(recipe.SpanTerm(temperature=2.0), student, target, same - 1.0, begins)
    assert float(apart) > 1e-4


@given(SEEDS)
def test_order_and_names_of_tokens_do_not_count_for_sorted_probabilities(seed):
    student, target, log_probs, _ = case(seed)
    rng = np.random.default_rng(seed)
    own = np.log(softmax(student))[[OF.index(span) for span in range(3)]]
    shuffled = rng.permuted(own, axis=1)
    assert float(loss(recipe.UldTerm(), student, target, log_probs, shuffled)) == pytest.approx(0, abs=1e-9)


@given(SEEDS)
def test_where_the_teacher_is_certain_a_high_temperature_is_cross_entropy(seed):
    student, target, _, begins = case(seed)
    value = loss(recipe.SpanTerm(temperature=1e5), student, target, np.zeros(3), begins)
    written = -np.log(softmax(student)[np.arange(len(OF)), target])
    assert float(value) == pytest.approx(written.mean(), rel=1e-2)


def test_certainty_on_both_sides_has_a_finite_gradient():
    _, target, _, begins = case(3)
    sure = torch.full((len(OF), VOCABULARY), -40.0)
    sure[torch.arange(len(OF)), torch.tensor(target)] = 40.0
    logits = sure.requires_grad_()
    value = loss(recipe.SpanTerm(), logits, target, np.zeros(3), begins, dtype=torch.float32)
    value.backward()
    assert float(value.detach()) == pytest.approx(0, abs=1e-6)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("term", [recipe.SpanTerm(temperature=2.0), recipe.UldTerm()], ids=lambda term: term.kind)
def test_what_is_not_known_counts_nothing(term):
    student, target, log_probs, begins = case(5)
    whole = loss(term, student, target, log_probs, begins)
    unknown_log_probs, unknown_begins = log_probs.copy(), begins.copy()
    unknown_log_probs[1], unknown_begins[1] = np.nan, np.nan
    some = loss(term, student, target, unknown_log_probs, unknown_begins)
    only_log_probs, only_begins = np.full(3, np.nan), np.full_like(begins, np.nan)
    only_log_probs[1], only_begins[1] = log_probs[1], begins[1]
    rest = loss(term, student, target, only_log_probs, only_begins)
    assert float(some) > 0
    assert float(some + rest) == pytest.approx(float(whole))
    logits = torch.tensor(student, requires_grad=True)
    nothing = loss(term, logits, target, np.full(3, np.nan), np.full_like(begins, np.nan))
    nothing.backward()
    assert float(nothing.detach()) == 0
    assert logits.grad is not None
    assert float(logits.grad.abs().sum()) == 0


@given(SEEDS, st.integers(1, THEIRS))
def test_fewer_outcomes_give_a_lower_bound(seed, k):
    student, _, _, begins = case(seed)
    logits = torch.tensor(student[[OF.index(span) for span in range(3)]])
    whole = sorted_distance(torch.tensor(begins), logits)
    some = sorted_distance(torch.tensor(-np.sort(-begins, axis=1)[:, :k]), logits)
    assert (some <= whole + 1e-12).all()
    if k == THEIRS:
        torch.testing.assert_close(some, whole)


def test_a_large_vocabulary_is_compared_by_its_highest():
    generator = torch.Generator().manual_seed(0)
    teacher = torch.log_softmax(4 * torch.randn(2, 5 * MOST_OUTCOMES, generator=generator, dtype=torch.float64), -1)
    logits = 4 * torch.randn(2, 3 * MOST_OUTCOMES, generator=generator, dtype=torch.float64)
    p = teacher.exp().sort(descending=True).values
    q = torch.nn.functional.pad(torch.softmax(logits, -1).sort(descending=True).values, (0, 2 * MOST_OUTCOMES))
    torch.testing.assert_close(sorted_distance(teacher, logits), (p - q).abs().sum(-1), atol=2e-2, rtol=0)


def test_a_term_says_what_it_needs():
    for term in (recipe.SpanTerm, recipe.UldTerm):
        for logits in ("stored", "online"):
            (made,) = make_terms([term(logits=logits)])
            assert made.needs == needs_of(term(logits=logits)) == {f"{logits}_spans"}
