"""What a student is asked to imitate, as a loss over answer tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def text_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats of the written tokens.

    Args:
        logits: float32 [tokens, vocabulary].
        target: int64 [tokens].
    """
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits, target)


def soft_loss(logits: torch.Tensor, ids: torch.Tensor, log_probs: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """Mean forward KL divergence, in nats, from the teacher's stored top-k distribution to the student's.

    Both distributions are coarsened to the same k + 1 outcomes: the teacher's k most likely tokens, and
    "anything else". At temperature 1 this is the exact KL divergence between the coarsened distributions, a
    lower bound of the full one (data-processing inequality). At temperature T both are softened,
    p_i^(1/T) / sum p_j^(1/T), and the loss is scaled by T^2 (Hinton et al. 2015, section 2).

    Args:
        logits: the student's, float32 [tokens, vocabulary].
        ids: the teacher's tokens in the student's vocabulary, int64 [tokens, k]; -1 counts as "anything else".
        log_probs: the teacher's log-probabilities of `ids`, float32 [tokens, k].
    """
    import torch

    known = ids >= 0
    teacher = _with_tail(log_probs.masked_fill(~known, float("-inf")))
    student_all = torch.log_softmax(logits, dim=-1)
    student = _with_tail(student_all.gather(-1, ids.clamp(min=0)).masked_fill(~known, float("-inf")))
    teacher = torch.log_softmax(teacher / temperature, dim=-1)
    student = torch.log_softmax(student / temperature, dim=-1)
    present = torch.isfinite(teacher)
    terms = torch.where(present, teacher.exp() * (teacher - student), 0.0)
    return terms.sum(-1).mean() * temperature**2


def _with_tail(log_probs: torch.Tensor) -> torch.Tensor:
    """[tokens, k] log-probabilities with the log of the remaining mass behind them, [tokens, k + 1]."""
    import torch

    # A sum that rounds to one or above leaves a tail of 1e-7, so that its logarithm stays finite.
    rest = (1 - log_probs.exp().sum(-1, keepdim=True)).clamp(min=1e-7)
    return torch.cat([log_probs, rest.log()], dim=-1)
