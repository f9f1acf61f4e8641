"""Rows of a batch against each other: what belongs together is pulled together, all else apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional

from slmops.train.objectives.base import STATES, VECTORS, View


def supervised_contrastive(states: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """The supervised contrastive loss (Khosla et al. 2020, equation 2), as a mean over rows.

    1/|I| Σ_{i∈I} -1/|P(i)| Σ_{p∈P(i)} log( exp(z_i·z_p/τ) / Σ_{a≠i} exp(z_i·z_a/τ) ) with z = h / ‖h‖. P(i) are the
    other rows of i's label, I the rows that have such. Rows without a label are not looked at. 0 where I is empty.

    Args:
        states: h, float32 [rows, width].
        labels: int64 [rows]; below 0: none.
        temperature: τ.
    """
    states, labels = states[labels >= 0], labels[labels >= 0]
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    alike = (labels[:, None] == labels) & ~itself
    others = alike.sum(-1)
    anchors = others > 0
    if not anchors.any():
        return states.sum() * 0.0
    unit = functional.normalize(states, dim=-1)
    scores = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf)
    log_probs = scores.log_softmax(-1).masked_fill(~alike, 0.0).sum(-1)
    return -(log_probs[anchors] / others[anchors]).mean()


def info_nce(vectors: torch.Tensor, answers: torch.Tensor, of: torch.Tensor, temperature: float) -> torch.Tensor:
    """InfoNCE with the batch's other answers as negatives (van den Oord et al. 2018, equation 4), a mean over rows.

    -1/n Σ_i log( exp(x_i·a_of(i)/τ) / Σ_j exp(x_i·a_j/τ) ): f of the paper is the exponential of a cosine.

    Args:
        vectors: x, of the rows' texts, of length one, float32 [n, width].
        answers: a, of the answers of the batch, each text once, of length one, float32 [answers, width].
        of: the answer of each row, int64 [n].
        temperature: τ.
    """
    return functional.cross_entropy(vectors @ answers.T / temperature, of)


@dataclass(frozen=True)
class SupervisedContrastive:
    """The states that rows are answered from; see `supervised_contrastive`. Its value is a mean over rows."""

    name: str
    temperature: float
    needs: ClassVar[frozenset[str]] = frozenset({STATES})

    def loss(self, view: View) -> torch.Tensor:
        assert view.states is not None and view.labels is not None  # noqa: S101, PT018
        return supervised_contrastive(view.states, view.labels, self.temperature)


@dataclass(frozen=True)
class Contrastive:
    """The vectors of a row's input and of its answer; see `info_nce`. Its value is a mean over rows."""

    name: str
    temperature: float
    needs: ClassVar[frozenset[str]] = frozenset({VECTORS})

    def loss(self, view: View) -> torch.Tensor:
        assert view.vectors is not None  # noqa: S101
        return info_nce(view.vectors.inputs, view.vectors.answers, view.vectors.of, self.temperature)
