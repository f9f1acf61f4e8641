"""What goes wrong in a training, told from its figures while there is still something to change."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

SMOOTHING = 0.9
"""Weight of the past in the running loss: about ten steps, since the loss of one batch says little."""

DIVERGED_RATIO, DIVERGED_NATS, DIVERGED_STEPS = 2.0, 0.1, 10
"""Near zero a loss doubles by chance, so it must also have risen by a tenth of a nat."""

SPIKE_RATIO, SPIKE_WINDOW, SPIKE_AFTER, SPIKES = 10.0, 50, 20, 3
"""How many times the median of how many last steps, from which step on, how often."""

OVERFITTING_RISES = 3

PLATEAU_FALL, PLATEAU_NATS, PLATEAU_STEPS, PLATEAU_SHARE = 0.01, 0.1, 50, 0.25
"""A fall of a hundredth is one; a loss below a tenth of a nat has no way to fall. How many steps without a fall, and
which share of all steps at least: late in a long training a loss falls slowly, and nothing is wrong."""


@dataclass
class Alarms:
    """Watches loss, gradient norm and validation loss; each kind of warning is given once.

    Attributes:
        steps: of the whole training; 0 where that is not known, and no plateau is told of.
        given: kind of warning to the step it was given at: `divergence`, `gradient_spikes`, `overfitting`, `plateau`.
        loss: exponential moving average of the training loss; None before the first step.
    """

    steps: int = 0
    given: dict[str, int] = field(default_factory=dict)
    loss: float | None = None
    lowest: float | None = None
    steps_above: int = 0
    norms: list[float] = field(default_factory=list)
    spikes: int = 0
    points: list[list[float]] = field(default_factory=list)
    fallen_to: float | None = None
    fallen_at: int = 0

    def state(self) -> dict[str, Any]:
        """Everything, as JSON data: `Alarms(**state)` goes on where this one is."""
        return asdict(self)

    def step(self, step: int, loss: float | None, norm: float) -> list[str]:
        """Take in one optimiser step; what has to be said about it.

        Args:
            loss: in nats per answer token; None where the step had none that can be compared with others.
            norm: of the gradient before it is clipped.
        """
        diverging = None if loss is None else self._diverging(step, loss)
        resting = None if loss is None else self._resting(step)
        return [said for said in (diverging, resting, self._spiking(step, norm)) if said]

    def evaluated(self, step: int, validation: float) -> list[str]:
        """Take in one evaluation on the validation rows; what has to be said about it."""
        if self.loss is None:
            return []
        self.points = [*self.points, [self.loss, validation]][-OVERFITTING_RISES - 1 :]
        training, held_out = zip(*self.points, strict=True)
        falls = all(after < before for before, after in pairwise(training))
        rises = all(after > before for before, after in pairwise(held_out))
        if len(self.points) <= OVERFITTING_RISES or not (falls and rises):
            return []
        return self._once(
            "overfitting",
            step,
            f"overfitting at step {step}: over the last {OVERFITTING_RISES} evaluations the validation loss rose from "
            f"{held_out[0]:.3g} to {held_out[-1]:.3g} while the training loss fell from {training[0]:.3g} to "
            f"{training[-1]:.3g}; train for fewer epochs, with a lower learning_rate, or on more rows",
        )

    def _diverging(self, step: int, loss: float) -> str | None:
        self.loss = loss if self.loss is None else SMOOTHING * self.loss + (1 - SMOOTHING) * loss
        self.lowest = self.loss if self.lowest is None else min(self.lowest, self.loss)
        above = self.loss > max(DIVERGED_RATIO * self.lowest, self.lowest + DIVERGED_NATS)
        self.steps_above = self.steps_above + 1 if above else 0
        if self.steps_above < DIVERGED_STEPS:
            return None
        said = self._once(
            "divergence",
            step,
            f"the loss diverges: at step {step} it is {self.loss:.3g}, and was {self.lowest:.3g}; lower learning_rate, "
            "raise warmup, or raise accumulate",
        )
        return said[0] if said else None

    def _resting(self, step: int) -> str | None:
        """Whether the running loss, which has taken in this step, has long not fallen."""
        assert self.loss is not None  # noqa: S101 - it has just been taken in
        if self.fallen_to is None or self.loss < (1 - PLATEAU_FALL) * self.fallen_to:
            self.fallen_to, self.fallen_at = self.loss, step
        still = step - self.fallen_at
        if not self.steps or "divergence" in self.given or still < max(PLATEAU_STEPS, PLATEAU_SHARE * self.steps):
            return None
        if self.fallen_to < PLATEAU_NATS:
            return None
        said = self._once(
            "plateau",
            step,
            f"plateau at step {step}: for {still} steps the loss has not fallen below {self.fallen_to:.3g}; raise "
            "learning_rate, let more move (lower freeze_layers, a larger adapter.rank), or end sooner with stop_early",
        )
        return said[0] if said else None

    def _spiking(self, step: int, norm: float) -> str | None:
        usual = statistics.median(self.norms) if len(self.norms) >= SPIKE_AFTER else None
        self.norms = [*self.norms, norm][-SPIKE_WINDOW:]
        if usual is None or norm <= SPIKE_RATIO * usual:
            return None
        self.spikes += 1
        if self.spikes < SPIKES:
            return None
        said = self._once(
            "gradient_spikes",
            step,
            f"gradient spikes: at step {step} the norm was {norm:.3g} and usually is {usual:.3g}, for the {SPIKES}rd "
            "time; lower learning_rate, raise accumulate, or look for rows with a wrong answer",
        )
        return said[0] if said else None

    def _once(self, kind: str, step: int, said: str) -> list[str]:
        if kind in self.given:
            return []
        self.given[kind] = step
        return [said]
