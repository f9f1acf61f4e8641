"""Next-token distributions of teacher and student over the same outcomes, whatever is known of the teacher's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from slmops.train.objectives.base import View

if TYPE_CHECKING:
    import torch

LEAST_TAIL = 1e-7
"""A sum that rounds to one or above leaves this mass for "anything else", so that its logarithm stays finite."""

ABSENT = -1e9
"""Log-probability of an outcome that is none; finite, so that differences of two are 0 and no gradient is NaN."""


def outcomes(view: View, logits: Literal["stored", "online"], temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of teacher and student, [n, outcomes] each, softened by the temperature.

    Of models that label the outcomes are the labels that one is chosen from at a position.
    """
    if logits == "stored":
        assert view.stored_ids is not None and view.stored_log_probs is not None  # noqa: S101, PT018
        return coarsened(view.logits, view.stored_ids, view.stored_log_probs, temperature)
    assert view.teacher_logits is not None  # noqa: S101
    if view.asked is None:
        return full(view.logits, view.teacher_logits, view.kept, temperature)
    ours, theirs = (each.masked_fill(~view.asked, ABSENT) for each in (view.logits, view.teacher_logits))
    return full(ours, theirs, None, temperature)


def coarsened(
    logits: torch.Tensor, ids: torch.Tensor, log_probs: torch.Tensor, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both distributions over k + 1 outcomes: the teacher's k most likely tokens, and "anything else".

    At temperature 1 any f-divergence between them is a lower bound of that between the full distributions
    (data-processing inequality; Csiszár 1967). At temperature T both are softened: p_i^(1/T) / Σ_j p_j^(1/T).

    Args:
        logits: the student's, float32 [n, V].
        ids: the teacher's tokens in the student's vocabulary, int64 [n, k]; -1 counts as "anything else".
        log_probs: the teacher's log-probabilities of `ids`, float32 [n, k].

    Returns:
        Log-probabilities of teacher and student, [n, k + 1] each.
    """
    import torch

    unknown = ids < 0
    student = torch.log_softmax(logits, dim=-1).gather(-1, ids.clamp(min=0))
    return (
        _softened(_with_tail(log_probs.masked_fill(unknown, ABSENT)), temperature),
        _softened(_with_tail(student.masked_fill(unknown, ABSENT)), temperature),
    )


def full(
    logits: torch.Tensor, teacher_logits: torch.Tensor, kept: torch.Tensor | None, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both full distributions, softmax(logits / T).

    Where the student keeps some of the teacher's tokens only, all others are one outcome more, "anything else", as with
    stored probabilities. The student gives it `LEAST_TAIL`, so what the teacher has there is a constant of the loss.

    Args:
        logits: the student's, float32 [n, V].
        teacher_logits: float32 [n, V of the teacher].
        kept: int64 [V], the teacher's id of each of the student's tokens; None when the vocabularies are the same.

    Returns:
        Log-probabilities of teacher and student, [n, V] each, or [n, V + 1] with `kept`.
    """
    import torch

    teacher = torch.log_softmax(teacher_logits / temperature, dim=-1)
    student = torch.log_softmax(logits / temperature, dim=-1)
    if kept is None:
        return teacher, student
    # Not what its own sum leaves: that is rounding, and its gradient would be of the size of the rest of the loss.
    tail = student.new_full((len(student), 1), math.log(LEAST_TAIL))
    return _with_tail(teacher[:, kept]), torch.cat([student, tail], dim=-1)


def _softened(log_probs: torch.Tensor, temperature: float) -> torch.Tensor:
    import torch

    return torch.log_softmax(log_probs / temperature, dim=-1)


def _with_tail(log_probs: torch.Tensor) -> torch.Tensor:
    """[n, k] log-probabilities with the log of the remaining mass behind them, [n, k + 1]."""
    import torch

    rest = (1 - log_probs.exp().sum(-1, keepdim=True)).clamp(min=LEAST_TAIL)
    return torch.cat([log_probs, rest.log()], dim=-1)
