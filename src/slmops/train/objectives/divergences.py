"""How far one next-token distribution is from another, and the terms that are made of that.

The functions take log-probabilities [n, outcomes] of teacher p and student q over the same outcomes, and return the
divergence at each position, [n], in nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from slmops.train.objectives.base import ONLINE, STORED, View
from slmops.train.objectives.outcomes import outcomes

if TYPE_CHECKING:
    import torch


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p ‖ q) = Σ p (log p - log q)."""
    return (p.exp() * (p - q)).sum(-1)


def mixed(p: torch.Tensor, q: torch.Tensor, share: float) -> torch.Tensor:
    """log(share · p + (1 - share) · q), for a share in [0, 1)."""
    import torch

    return q if share == 0 else torch.logaddexp(p + math.log(share), q + math.log1p(-share))


@dataclass(frozen=True)
class Divergence:
    """A term made of a divergence: its mean over answer tokens, times T² (Hinton et al. 2015, section 2).

    Of a model that labels the mean is weighted, as with cross-entropy.

    Softening shrinks gradients by 1/T², so the factor keeps the weights of a mixture meaningful at any temperature.

    Attributes:
        temperature: T; softens both distributions.
        logits: `stored`: the teacher's top k and the rest as one outcome; `online`: its whole distribution.
    """

    name: str
    temperature: float
    logits: Literal["stored", "online"]

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({STORED if self.logits == "stored" else ONLINE})

    def loss(self, view: View) -> torch.Tensor:
        teacher, student = outcomes(view, self.logits, self.temperature)
        nats = self.divergence(teacher, student)
        mean = nats.mean() if view.weights is None else (view.weights * nats).sum() / view.weights.sum()
        return mean * self.temperature**2

    def divergence(self, teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
        """At each position, [n], in nats, from log-probabilities [n, outcomes]."""
        raise NotImplementedError


class ForwardKl(Divergence):
    """KL(p ‖ q), the teacher's view (Hinton et al. 2015, section 2): its gradient is that of cross-entropy with p.

    The student gives some mass to all that the teacher may say, even where that is more than it can represent.
    """

    def divergence(self, teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
        return kl(teacher, student)


class ReverseKl(Divergence):
    """KL(q ‖ p), the student's view (Gu et al. 2024, MiniLLM, section 2.1), per token of the given answers.

    The student leaves out what it cannot represent rather than blur it. MiniLLM takes the expectation over texts that
    the student writes; here it is over each position of the given answers, and of the student's with `train.on_policy`.
    """

    def divergence(self, teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
        return kl(student, teacher)


@dataclass(frozen=True)
class Jsd(Divergence):
    """Generalised Jensen-Shannon divergence (Agarwal et al. 2024, GKD, section 2).

    JSD_β(p ‖ q) = β KL(p ‖ m) + (1 - β) KL(q ‖ m), with m = β p + (1 - β) q. Bounded, symmetric at β = 0.5; divided by
    β it tends to forward KL for β → 0, and divided by 1 - β to reverse KL for β → 1.
    """

    beta: float

    def divergence(self, teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
        middle = mixed(teacher, student, self.beta)
        return self.beta * kl(teacher, middle) + (1 - self.beta) * kl(student, middle)


@dataclass(frozen=True)
class SkewedKl(Divergence):
    """KL(p ‖ α p + (1 - α) q), at most -log α (Ko et al. 2024, DistiLLM, section 3.1)."""

    alpha: float

    def divergence(self, teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
        return kl(teacher, mixed(teacher, student, self.alpha))


@dataclass(frozen=True)
class SkewedReverseKl(Divergence):
    """KL(q ‖ α q + (1 - α) p), at most -log α (Ko et al. 2024, DistiLLM, section 3.1)."""

    alpha: float

    def divergence(self, teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
        return kl(student, mixed(student, teacher, self.alpha))
