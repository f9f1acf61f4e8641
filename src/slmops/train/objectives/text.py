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


@dataclass(frozen=True)
class Text:
    """Cross-entropy on the teacher's words: sequence-level distillation (Kim and Rush 2016, equation 6).

    On labelled rows the words are the reference's, and it is the common loss of fine-tuning.
    """

    name: str
    needs: ClassVar[frozenset[str]] = frozenset()

    def loss(self, view: View) -> torch.Tensor:
        return cross_entropy(view.logits, view.target, view.weights)
