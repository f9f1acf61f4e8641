"""The words of the answer: formulas against plain sums, gradients against differences, and who gets them."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from slmops.recipe.objective import TextTerm
from slmops.train.objectives.base import View
from slmops.train.objectives.make import make_terms
from slmops.train.objectives.text import Text, focal_cross_entropy

LOGITS = torch.randn(5, 7, generator=torch.Generator().manual_seed(3)) * 2
TARGET = torch.tensor([0, 6, 3, 3, 1])


def value(smoothing: float, gamma: float) -> float:
    return float(focal_cross_entropy(LOGITS, TARGET, smoothing=smoothing, gamma=gamma))


def test_label_smoothing_is_that_of_pytorch() -> None:
    for smoothing in (0.0, 0.1, 0.5):
        expected = functional.cross_entropy(LOGITS, TARGET, label_smoothing=smoothing)
        assert value(smoothing, 0.0) == pytest.approx(float(expected), rel=1e-5)


def test_focal_is_the_paper_s_sum() -> None:
    shares = [float(row.softmax(0)[one]) for row, one in zip(LOGITS, TARGET, strict=True)]
    for gamma in (0.5, 2.0):
        expected = sum(-((1 - p) ** gamma) * math.log(p) for p in shares) / len(shares)
        assert value(0.0, gamma) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("smoothing", "gamma"), [(0.0, 2.0), (0.1, 0.0), (0.1, 0.5)])
def test_the_gradient_is_that_of_the_formula(smoothing: float, gamma: float) -> None:
    def loss(logits: torch.Tensor) -> torch.Tensor:
        return focal_cross_entropy(logits, TARGET, smoothing=smoothing, gamma=gamma)

    assert torch.autograd.gradcheck(loss, (LOGITS.double().requires_grad_(),))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_a_token_that_is_certain_has_a_gradient_that_is_a_number(gamma: float) -> None:
    logits = torch.tensor([[80.0, 0.0, 0.0]], requires_grad=True)
    loss = focal_cross_entropy(logits, torch.tensor([0]), smoothing=0.0, gamma=gamma)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-9)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_the_recipe_s_term_has_them() -> None:
    (term,) = make_terms([TextTerm(label_smoothing=0.1, focal=2.0)])
    assert isinstance(term, Text)
    assert float(term.loss(View(LOGITS, TARGET))) == pytest.approx(value(0.1, 2.0))
