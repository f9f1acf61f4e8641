"""The words of the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from slmops.train.objectives.base import View

if TYPE_CHECKING:
    import torch


def cross_entropy(logits: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Mean cross-entropy in nats of the written tokens: -1/n Σ log softmax(logits)[target].

    Args:
        logits: float32 [tokens, vocabulary].
        target: int64 [tokens].
        weights: float32 [tokens], of a model that labels: how much each counts in the mean. Its `logits` are
            log-probabilities already, those of each group of labels a distribution.
    """
    from torch.nn import functional

    if weights is None:
        return functional.cross_entropy(logits, target)
    said = logits.gather(1, target[:, None])[:, 0]
    return -(weights * said).sum() / weights.sum()


def focal_cross_entropy(
    logits: torch.Tensor,
    target: torch.Tensor,
    *,
    smoothing: float = 0.0,
    gamma: float = 0.0,
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean over n tokens of -(1 - p_t)^γ ((1 - ε) log p_t + ε/V Σ_v log p_v), in nats.

    With ε = 0 the focal loss (Lin et al. 2017, equation 4), with γ = 0 label smoothing (Szegedy et al. 2016, section
    7), with both 0 cross-entropy. The gradient goes through the factor too, as in the paper.

    Args:
        logits: float32 [n, V].
        target: int64 [n].
        smoothing: ε.
        gamma: γ.
        counts: float32 [n], how much each token counts in the mean; None: all alike.
    """
    import torch

    log_probs = logits.log_softmax(dim=-1)
    said = log_probs.gather(1, target[:, None])[:, 0]
    wanted = (1 - smoothing) * said + smoothing * log_probs.mean(dim=-1) if smoothing else said
    # 1 - p of a token that is all but certain would lose its digits, and its power has no gradient at 0.
    missing = -torch.expm1(said.clamp(max=-_LEAST))
    each = -(missing**gamma * wanted)
    return each.mean() if counts is None else (counts * each).sum() / counts.sum()


_LEAST = 1e-7
"""Nats: log p of a token counts as no nearer to 0."""


@dataclass(frozen=True)
class Text:
    """Cross-entropy on the teacher's words: sequence-level distillation (Kim and Rush 2016, equation 6).

    On labelled rows the words are the reference's, and it is the common loss of fine-tuning. With `smoothing` or
    `gamma`, or `weighted` by the classes of the answers, see `focal_cross_entropy`; a model that labels has none of it.
    """

    name: str
    smoothing: float = 0.0
    gamma: float = 0.0
    weighted: bool = False
    needs: ClassVar[frozenset[str]] = frozenset()

    def loss(self, view: View) -> torch.Tensor:
        counts = view.counts if self.weighted else None
        if self.smoothing or self.gamma or counts is not None:
            return focal_cross_entropy(
                view.logits, view.target, smoothing=self.smoothing, gamma=self.gamma, counts=counts
            )
        return cross_entropy(view.logits, view.target, view.weights)
