"""Terms for two models with different tokenizers: they go by spans of text at whose ends tokens of both end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from slmops.train.objectives.base import ONLINE_SPANS, STORED_SPANS, Spans, View
from slmops.train.objectives.divergences import kl

if TYPE_CHECKING:
    import torch

LEAST_SURPRISE = 1e-6
"""In nats: a span that is certain counts as this far from it, so that the logarithm of its complement stays finite."""

MOST_OUTCOMES = 1024
"""Outcomes of a distribution that are sorted; to sort a vocabulary of a quarter million costs more than a small model's
forward pass, and what lies behind is all but nothing."""


@dataclass(frozen=True)
class OfSpans:
    """A term that goes by spans.

    Attributes:
        logits: `stored`: what was kept with each answer; `online`: from the teacher that runs beside the student.
    """

    name: str
    logits: Literal["stored", "online"]

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({STORED_SPANS if self.logits == "stored" else ONLINE_SPANS})

    def spans(self, view: View) -> Spans:
        spans = view.stored_spans if self.logits == "stored" else view.online_spans
        assert spans is not None  # noqa: S101
        return spans


@dataclass(frozen=True)
class SpanLikelihood(OfSpans):
    """Approximate likelihood matching (Minixhofer et al. 2025, ALM): both give a span of text the same likelihood.

    τ Σ_i KL(Bernoulli(p_i^(1/τ)) ‖ Bernoulli(q_i^(1/τ))) / n over the spans i of n answer tokens: the binarised
    f-divergence of ALM with KL for f. p_i is the product of the probabilities that the teacher gives to its tokens of
    the span, q_i the student's of its own. No other outcome of a span is looked at, which is the approximation.

    A small τ looks at spans that are likely, a large one at all alike: for τ → ∞ a span's part tends to
    b - a + a log(a / b) with a = -log p_i and b = -log q_i, which is the student's cross-entropy b where the teacher is
    certain. Its gradient shrinks by 1/τ, so the factor keeps the weights of a mixture meaningful at any τ.
    """

    temperature: float

    def loss(self, view: View) -> torch.Tensor:
        spans = self.spans(view)
        known = ~spans.log_probs.isnan()
        student = span_log_probs(view.logits, view.target, spans.of, len(spans.log_probs))
        theirs, ours = (_or_not(each[known], self.temperature) for each in (spans.log_probs, student))
        return self.temperature * kl(theirs, ours).sum() / len(view.target)


@dataclass(frozen=True)
class SortedDistance(OfSpans):
    """Universal logit distillation (Boizard et al. 2024, ULD): distributions of like shape, whatever their tokens are.

    Σ_i Σ_j |p_(j) - q_(j)| / n: the distance of the probabilities in descending order, which is the Wasserstein
    distance where every two tokens are equally far apart. Boizard et al. take it at the first, second, ... token of
    both answers; here it is at the beginnings i of spans, where both have read the same text, over n answer tokens.
    """

    def loss(self, view: View) -> torch.Tensor:
        import torch

        spans = self.spans(view)
        known = ~spans.begins.isnan().any(-1)
        first = torch.searchsorted(spans.of, torch.arange(len(known), device=spans.of.device))
        return sorted_distance(spans.begins[known], view.logits[first[known]]).sum() / len(view.target)


def span_log_probs(logits: torch.Tensor, target: torch.Tensor, of: torch.Tensor, count: int) -> torch.Tensor:
    """Log-likelihood of each of `count` spans, float32 [count]: the sum over its tokens.

    Args:
        logits: float32 [n, V].
        target: the tokens, int64 [n].
        of: the span of each of them, int64 [n].
    """
    import torch

    written = -torch.nn.functional.cross_entropy(logits, target, reduction="none")
    return written.new_zeros(count).index_add(0, of, written)


def sorted_distance(teacher: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Σ_j |p_(j) - q_(j)| at each position, [m]: over the highest outcomes of both, and all others as one.

    Where the shorter of both has no others it is the whole distance, the shorter being filled up with zeros; else it is
    a lower bound, by the triangle inequality.

    Args:
        teacher: its highest log-probabilities, float32 [m, k].
        logits: the student's, float32 [m, V].
    """
    import torch

    most = min(teacher.shape[-1], logits.shape[-1], MOST_OUTCOMES)
    theirs, ours = (each.topk(most).values for each in (teacher.exp(), torch.softmax(logits, dim=-1)))
    return (theirs - ours).abs().sum(-1) + (theirs.sum(-1) - ours.sum(-1)).abs()


def _or_not(log_probs: torch.Tensor, temperature: float) -> torch.Tensor:
    """Log-probabilities of both outcomes of spans, softened, [s, 2]: the span is written, or anything else is."""
    import torch

    happens = log_probs.clamp(max=-LEAST_SURPRISE) / temperature
    return torch.stack([happens, (-torch.expm1(happens)).log()], dim=-1)
