"""Every divergence against plain float64 arithmetic, and its gradient against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slmops.recipe import objective as recipe
from slmops.train.objectives.base import View
from slmops.train.objectives.divergences import kl
from slmops.train.objectives.make import make_terms
from slmops.train.objectives.text import cross_entropy

VOCABULARY = 9
SEEDS = st.integers(0, 500)
TERMS = {
    "forward_kl": recipe.ForwardKl,
    "reverse_kl": recipe.ReverseKl,
    "jsd": lambda **given: recipe.Jsd(beta=0.3, **given),
    "skewed_kl": lambda **given: recipe.SkewedKl(alpha=0.2, **given),
    "skewed_reverse_kl": lambda **given: recipe.SkewedReverseKl(alpha=0.2, **given),
}


def plain_kl(p: np.ndarray, q: np.ndarray) -> float:
    seen = p > 0
    return float((p[seen] * np.log(p[seen] / q[seen])).sum())


PLAIN = {
    "forward_kl": plain_kl,
    "reverse_kl": lambda p, q: plain_kl(q, p),
    "jsd": lambda p, q: 0.3 * plain_kl(p, 0.3 * p + 0.7 * q) + 0.7 * plain_kl(q, 0.3 * p + 0.7 * q),
    "skewed_kl": lambda p, q: plain_kl(p, 0.2 * p + 0.8 * q),
    "skewed_reverse_kl": lambda p, q: plain_kl(q, 0.2 * q + 0.8 * p),
}


def case(seed: int, tokens: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Logits of student and teacher, float64."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(tokens, VOCABULARY)) * 2, rng.normal(size=(tokens, VOCABULARY)) * 2


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def stored(teacher: np.ndarray, k: int, missing: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The teacher's top k tokens and their log-probabilities; the student lacks the first `missing` of row 0."""
    log_probs = np.log(softmax(teacher))
    ids = np.argsort(-log_probs, axis=-1)[:, :k]
    log_probs = np.take_along_axis(log_probs, ids, -1)
    ids[0, :missing] = -1
    return ids, log_probs


def loss(kind: str, view: View, **settings: object) -> torch.Tensor:
    (term,) = make_terms([TERMS[kind](**settings)])
    assert term.name == kind
    return term.loss(view)


def view_of(logits: torch.Tensor, **fields: np.ndarray) -> View:
    return View(logits, torch.zeros(len(logits), dtype=torch.long), **{k: torch.tensor(v) for k, v in fields.items()})


def of_full(kind: str, student: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    rows = zip(softmax(teacher / temperature), softmax(student / temperature), strict=True)
    return float(np.mean([PLAIN[kind](p, q) for p, q in rows])) * temperature**2


def of_stored(kind: str, student: np.ndarray, ids: np.ndarray, log_probs: np.ndarray, temperature: float) -> float:
    """The divergence of the two distributions over the known tokens and one outcome for all the rest."""
    found = []
    for row, chosen, given_ in zip(softmax(student), ids, log_probs, strict=True):
        known = [(np.exp(p), row[i]) for i, p in zip(chosen, given_, strict=True) if i >= 0]
        p, q = (np.array([*column, max(1 - sum(column), 1e-7)]) for column in zip(*known, strict=True))
        p, q = p ** (1 / temperature), q ** (1 / temperature)
        found.append(PLAIN[kind](p / p.sum(), q / q.sum()))
    return float(np.mean(found)) * temperature**2


@pytest.mark.parametrize("kind", TERMS)
@given(seed=SEEDS, temperature=st.sampled_from([0.5, 1.0, 2.0, 4.0]))
def test_on_full_distributions_it_is_its_formula(kind, seed, temperature):
    student, teacher = case(seed)
    ours = loss(kind, view_of(torch.tensor(student), teacher_logits=teacher), temperature=temperature, logits="online")
    assert float(ours) == pytest.approx(of_full(kind, student, teacher, temperature), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("kind", TERMS)
@given(seed=SEEDS, temperature=st.sampled_from([0.5, 1.0, 2.0, 4.0]), missing=st.integers(0, 2))
def test_on_stored_probabilities_it_is_its_formula_over_k_tokens_and_the_rest(kind, seed, temperature, missing):
    student, teacher = case(seed)
    ids, log_probs = stored(teacher, k=4, missing=missing)
    view = view_of(torch.tensor(student), stored_ids=ids, stored_log_probs=log_probs)
    expected = of_stored(kind, student, ids, log_probs, temperature)
    assert float(loss(kind, view, temperature=temperature)) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("logits", ["stored", "online"])
@pytest.mark.parametrize("kind", TERMS)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_gradients(kind, logits, temperature):
    student, teacher = case(5)
    ids, log_probs = stored(teacher, k=4, missing=1)
    shown = (
        {"stored_ids": ids, "stored_log_probs": log_probs}
        if logits == "stored"
        else {"teacher_logits": np.concatenate([teacher, teacher[:, :2]], -1), "kept": np.arange(1, VOCABULARY + 1)}
    )
    leaf = torch.tensor(student, requires_grad=True)

    def of(logits_: torch.Tensor) -> torch.Tensor:
        return loss(kind, view_of(logits_, **shown), temperature=temperature, logits=logits)

    assert torch.autograd.gradcheck(of, (leaf,))


@pytest.mark.parametrize("kind", TERMS)
def test_it_is_zero_for_the_teacher_itself_and_positive_elsewhere(kind):
    for seed in range(20):
        student, teacher = case(seed)
        same = loss(kind, view_of(torch.tensor(teacher), teacher_logits=teacher), logits="online")
        other = loss(kind, view_of(torch.tensor(student), teacher_logits=teacher), logits="online")
        assert abs(float(same)) < 1e-9
        assert float(other) > 1e-3


@given(SEEDS)
def test_the_bounded_ones_are_bounded(seed):
    student, teacher = case(seed)
    view = view_of(torch.tensor(student * 50), teacher_logits=teacher * 50)
    assert float(loss("skewed_kl", view, logits="online")) <= -math.log(0.2) + 1e-9
    assert float(loss("skewed_reverse_kl", view, logits="online")) <= -math.log(0.2) + 1e-9
    assert float(loss("jsd", view, logits="online")) <= -0.3 * math.log(0.3) - 0.7 * math.log(0.7) + 1e-9


@given(SEEDS)
def test_the_ends_of_skew_and_mixture_are_the_plain_divergences(seed):
    student, teacher = case(seed)
    view = view_of(torch.tensor(student), teacher_logits=teacher)

    def of(term: recipe.Term) -> float:
        return float(make_terms([term])[0].loss(view))

    forward, reverse = of(recipe.ForwardKl(logits="online")), of(recipe.ReverseKl(logits="online"))
    assert of(recipe.SkewedKl(alpha=0, logits="online")) == pytest.approx(forward)
    assert of(recipe.SkewedReverseKl(alpha=0, logits="online")) == pytest.approx(reverse)
    # GKD, section 2: the limits of JSD(β) / β and JSD(β) / (1 - β).
    assert of(recipe.Jsd(beta=1e-7, logits="online")) / 1e-7 == pytest.approx(forward, rel=1e-3, abs=1e-4)
    assert of(recipe.Jsd(beta=1 - 1e-7, logits="online")) / 1e-7 == pytest.approx(reverse, rel=1e-3, abs=1e-4)


def test_all_mass_on_one_token_is_cross_entropy():
    logits = torch.randn(5, VOCABULARY, dtype=torch.float64)
    target = torch.tensor([0, 3, 8, 2, 2])
    ids = np.full((5, 3), -1)
    log_probs = np.full((5, 3), -np.inf)
    ids[:, 0], log_probs[:, 0] = target, 0.0
    ours = loss("forward_kl", view_of(logits, stored_ids=ids, stored_log_probs=log_probs))
    assert float(ours) == pytest.approx(float(cross_entropy(logits, target)), abs=1e-4)


def test_temperature_leaves_the_size_of_gradients_nearly_as_it_is():
    """Hinton et al. 2015, section 2: at high temperature the gradient tends to that of matching logits."""
    student, teacher = case(3)
    gradients = []
    for temperature in (50.0, 100.0):
        leaf = torch.tensor(student, requires_grad=True)
        view = view_of(leaf, teacher_logits=teacher)
        loss("forward_kl", view, temperature=temperature, logits="online").backward()
        gradients.append(leaf.grad)
    centred = student - student.mean(-1, keepdims=True) - (teacher - teacher.mean(-1, keepdims=True))
    np.testing.assert_allclose(gradients[1], centred / VOCABULARY / len(student), atol=0.02)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0.2, atol=0.01)


def test_what_is_absent_in_both_counts_nothing_and_has_no_gradient():
    p = torch.tensor([[0.25, 0.75]], dtype=torch.float64).log()
    absent = torch.full((1, 1), -1e9, dtype=torch.float64)
    q = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    wide = torch.cat([q, absent], -1).requires_grad_()
    kl(torch.cat([p, absent], -1), wide).sum().backward()
    assert wide.grad is not None
    assert float(wide.grad[0, 2]) == 0
    torch.testing.assert_close(kl(torch.cat([p, absent], -1), wide), kl(p, q))
    torch.testing.assert_close(kl(wide, torch.cat([p, absent], -1)), kl(q, p))
