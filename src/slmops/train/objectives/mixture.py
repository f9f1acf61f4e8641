"""The weighted sum of terms that is minimised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from slmops.train.objectives.base import Term, View, judges_own_answers
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

    def forward(self, view: View, *, own: bool = False) -> dict[str, tuple[float | torch.Tensor, torch.Tensor]]:
        """Each term by name: its factor in the sum, and its value as it is, a scalar.

        Args:
            own: the answers are the student's own; the terms that cannot be had of those are left out.
        """
        shown = [i for i, term in enumerate(self.terms) if not own or judges_own_answers(term.needs)]
        values = {i: self.terms[i].loss(view) for i in shown}
        factors: list[float | torch.Tensor] = [*self.weights]
        if self.normalise:
            self._measure(values)
            factors = [
                weight / magnitude for weight, magnitude in zip(self.weights, self.magnitudes.clone(), strict=True)
            ]
        return {self.terms[i].name: (factors[i], value) for i, value in values.items()}

    @torch.no_grad()
    def _measure(self, values: Mapping[int, torch.Tensor]) -> None:
        """Take one more batch, or one of each process, into the running means; they begin with the first.

        Args:
            values: of the terms that the batch has, by number; the means of the others stay.
        """
        now, seen = torch.zeros_like(self.magnitudes), torch.zeros_like(self.magnitudes)
        for i, value in values.items():
            now[i], seen[i] = value.detach().float().abs(), 1.0
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # One loss for all: were every process to measure for itself, their gradients would be of different sums.
            both = torch.stack([now, seen])
            torch.distributed.all_reduce(both)
            now, seen = both
        now = (now / seen.clamp(min=1.0)).clamp(min=LEAST_MAGNITUDE)
        before = torch.where(self.magnitudes > 0, self.magnitudes, now)
        after = MEMORY * before + (1 - MEMORY) * now
        self.magnitudes.copy_(torch.where(seen > 0, after, self.magnitudes))
