"""The losses against plain float64 arithmetic, and their gradients against finite differences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slmops.train.objective import soft_loss, text_loss

VOCABULARY = 9


def case(seed: int, tokens: int = 3, k: int = 4):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(tokens, VOCABULARY)) * 2
    teacher = rng.normal(size=(tokens, VOCABULARY)) * 2
    log_probs = teacher - np.log(np.exp(teacher).sum(-1, keepdims=True))
    ids = np.argsort(-log_probs, axis=-1)[:, :k]
    return logits, ids, np.take_along_axis(log_probs, ids, -1)


def plain(logits, ids, log_probs, temperature):
    """KL between the two distributions over the known tokens and one outcome for all the rest."""
    total = 0.0
    for row, chosen, given_ in zip(logits, ids, log_probs, strict=True):
        student = np.exp(row) / np.exp(row).sum()
        known = [(student[i], np.exp(p)) for i, p in zip(chosen, given_, strict=True) if i >= 0]
        p, q = (np.array([*column, max(1 - sum(column), 1e-7)]) for column in zip(*known, strict=True))
        p, q = p ** (1 / temperature), q ** (1 / temperature)
        p, q = p / p.sum(), q / q.sum()
        total += float((q * np.log(q / p)).sum())
    return total / len(logits) * temperature**2


@given(st.integers(0, 500), st.sampled_from([0.5, 1.0, 2.0, 4.0]), st.integers(0, 2))
@settings(deadline=None)
def test_soft_loss_is_the_coarsened_kl_divergence(seed, temperature, missing):
    logits, ids, log_probs = case(seed)
    ids[0, :missing] = -1
    ours = soft_loss(torch.tensor(logits), torch.tensor(ids), torch.tensor(log_probs), temperature=temperature)
    assert float(ours) == pytest.approx(plain(logits, ids, log_probs, temperature), abs=1e-6)


def test_soft_loss_is_zero_for_the_teacher_itself_and_positive_elsewhere():
    logits, ids, _ = case(1, k=VOCABULARY)
    own = torch.log_softmax(torch.tensor(logits), -1)
    known = own.gather(-1, torch.tensor(ids))
    assert float(soft_loss(torch.tensor(logits), torch.tensor(ids), known, temperature=1)) < 1e-6
    assert all(float(soft_loss(*map(torch.tensor, case(seed)), temperature=1)) > 0 for seed in range(20))


def test_all_mass_on_one_token_is_cross_entropy():
    logits = torch.randn(5, VOCABULARY, dtype=torch.float64)
    target = torch.tensor([0, 3, 8, 2, 2])
    ids = torch.full((5, 3), -1)
    log_probs = torch.full((5, 3), -np.inf, dtype=torch.float64)
    ids[:, 0], log_probs[:, 0] = target, 0.0
    ours = soft_loss(logits, ids, log_probs, temperature=1.0)
    assert float(ours) == pytest.approx(float(text_loss(logits, target)), abs=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_gradients(temperature):
    logits, ids, log_probs = case(5)
    ids[1, 2] = -1
    leaf = torch.tensor(logits, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: soft_loss(x, torch.tensor(ids), torch.tensor(log_probs), temperature=temperature), (leaf,)
    )
