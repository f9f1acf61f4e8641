"""The weighted sum of terms that is minimised."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from slmops.train.objectives.base import Term, View
from slmops.train.objectives.custom import Custom

MEMORY = 0.98
"""Of the running magnitudes: they remember some fifty batches."""

LEAST_MAGNITUDE = 1e-6
"""A term that has all but vanished is not blown up beyond this."""


class Mixture(torch.nn.Module):
    """Σ w_i L_i, or with `normalise` Σ w_i L_i / m_i.

    m_i is the running mean of |L_i|, m ← μ m + (1 - μ) |L|, from the first batch on; it counts as a constant of the
    gradient. Terms of unlike units, such as nats and squared differences, then weigh what their weights say (the
    loss-scale problem of multi-task learning; Kendall et al. 2018 learn the scales, here they are measured).

    The magnitudes and the weights that terms learn are part of the module's state: attached to the student they are in
    every checkpoint, and a resumed training goes on with the same bits.
    """

    magnitudes: torch.Tensor

    def __init__(self, terms: Sequence[Term], weights: Sequence[float], *, normalise: bool) -> None:
        super().__init__()
        self.terms, self.weights, self.normalise = list(terms), list(weights), normalise
        parts = [term.inner if isinstance(term, Custom) else term for term in terms]
        self.learned = torch.nn.ModuleList(part for part in parts if isinstance(part, torch.nn.Module))
        if normalise:
            self.register_buffer("magnitudes", torch.zeros(len(self.terms), dtype=torch.float32))

    def forward(self, view: View) -> dict[str, tuple[float | torch.Tensor, torch.Tensor]]:
        """Each term by name: its factor in the sum, and its value as it is, a scalar."""
        values = [term.loss(view) for term in self.terms]
        factors: list[float | torch.Tensor] = [*self.weights]
        if self.normalise:
            self._measure(values)
            factors = [
                weight / magnitude for weight, magnitude in zip(self.weights, self.magnitudes.clone(), strict=True)
            ]
        return {term.name: (factor, value) for term, factor, value in zip(self.terms, factors, values, strict=True)}

    @torch.no_grad()
    def _measure(self, values: Sequence[torch.Tensor]) -> None:
        """Take one more batch, or one of each process, into the running means; they begin with the first."""
        now = torch.stack([value.detach().float() for value in values]).abs()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # One loss for all: were every process to measure for itself, their gradients would be of different sums.
            torch.distributed.all_reduce(now)
            now /= torch.distributed.get_world_size()
        now.clamp_(min=LEAST_MAGNITUDE)
        before = torch.where(self.magnitudes > 0, self.magnitudes, now)
        self.magnitudes.copy_(MEMORY * before + (1 - MEMORY) * now)
