"""What is lost when only the teacher's most likely tokens are kept, and what a smaller vocabulary leaves over."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slmops.train.objectives.divergences import kl
from slmops.train.objectives.outcomes import LEAST_TAIL, coarsened, full

VOCABULARY = 24


def models(seed: int, sharpness: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of student and teacher, float64 [4, V]."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(2, 4, VOCABULARY, generator=generator, dtype=torch.float64) * sharpness
    return made[0], made[1]


def stored(teacher: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    log_probs, ids = torch.log_softmax(teacher, -1).topk(k)
    return ids, log_probs


@given(st.integers(0, 999), st.floats(0.3, 1.5), st.booleans())
def test_the_kept_top_k_bounds_the_divergence_from_below_and_the_gap_shrinks_with_k(seed, sharpness, backwards):
    """The data-processing inequality, over nested partitions: k + 1 tokens split the outcomes of k further."""
    student, teacher = models(seed, sharpness)

    def divergence(pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return kl(*(reversed(pair) if backwards else pair))

    whole = divergence(full(student, teacher, None))
    gaps = [whole - divergence(coarsened(student, *stored(teacher, k))) for k in range(1, VOCABULARY + 1)]
    # The least tail that is given to an outcome without mass moves the figures by less than this.
    slack = 1e-4
    for wide, narrow in pairwise(gaps):
        assert bool((narrow <= wide + slack).all())
        assert bool((narrow >= -slack).all())
    assert float(gaps[-1].abs().max()) < slack


@given(st.integers(0, 99), st.integers(1, 20))
def test_outcomes_of_both_are_distributions(seed, k):
    student, teacher = models(seed)
    ids, log_probs = stored(teacher, k)
    ids[1, 0] = -1
    for temperature in (1.0, 3.0):
        for found in coarsened(student, ids, log_probs, temperature):
            assert found.shape == (4, k + 1)
            torch.testing.assert_close(found.exp().sum(-1), torch.ones(4, dtype=torch.float64))


def test_the_teachers_tokens_that_the_student_lacks_are_one_outcome():
    _, teacher = models(1)
    kept = torch.tensor([0, 3, 4, 7, 11])
    student = torch.randn(4, 5, dtype=torch.float64)
    theirs, ours = full(student, teacher, kept)
    probabilities = torch.softmax(teacher, -1)
    torch.testing.assert_close(theirs[:, :-1].exp(), probabilities[:, kept])
    torch.testing.assert_close(theirs[:, -1].exp(), 1 - probabilities[:, kept].sum(-1))
    torch.testing.assert_close(ours[:, :-1], torch.log_softmax(student, -1))
    assert ours[:, -1].exp().tolist() == pytest.approx([LEAST_TAIL] * 4)


def test_with_a_smaller_vocabulary_the_gradient_is_that_of_the_kept_tokens():
    """Forward KL pulls the student to the teacher's probabilities of what it can say, and to nothing else."""
    _, teacher = models(2)
    kept = torch.tensor([1, 2, 8, 9, 20])
    student = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    kl(*full(student, teacher, kept)).sum().backward()
    wanted = torch.softmax(teacher, -1)[:, kept]
    expected = torch.softmax(student.detach(), -1) * wanted.sum(-1, keepdim=True) - wanted
    assert student.grad is not None
    torch.testing.assert_close(student.grad, expected)


def test_stored_and_online_agree_where_all_that_the_student_knows_is_stored():
    _, teacher = models(3)
    kept = torch.tensor([1, 2, 8, 9, 20])
    student = torch.randn(4, 5, dtype=torch.float64)
    log_probs = torch.log_softmax(teacher, -1)[:, kept]
    ids = torch.arange(5).expand(4, 5)
    np.testing.assert_allclose(kl(*coarsened(student, ids, log_probs)), kl(*full(student, teacher, kept)), atol=1e-5)


def test_what_the_student_cannot_say_has_no_part_in_the_gradient():
    """Of -Σ q log p over kept tokens, of which the teacher gives q a mass m, the gradient at a logit is m p - q."""
    made = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(50, tokens, generator=made) for tokens in (36, 40))
    student.requires_grad_()
    kept = torch.tensor([i for i in range(40) if i % 10])
    kl(*full(student, teacher, kept)).sum().backward()
    q = torch.softmax(teacher, -1)[:, kept]
    wanted = q.sum(-1, keepdim=True) * torch.softmax(student.detach(), -1) - q
    torch.testing.assert_close(student.grad, wanted, rtol=1e-3, atol=1e-5)
