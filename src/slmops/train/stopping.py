"""Early stopping (Prechelt 1998): the lowest validation loss so far, and how long it has not been beaten."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Lowest:
    """The lowest validation loss so far.

    Attributes:
        loss: in nats per answer token; None before the first evaluation.
        step: the optimiser step it was reached at.
        waited: evaluations since then.
    """

    loss: float | None = None
    step: int = 0
    waited: int = 0

    def state(self) -> dict[str, Any]:
        """Everything, as JSON data: `Lowest(**state)` goes on where this one is."""
        return asdict(self)

    def take(self, step: int, loss: float) -> bool:
        """Take in one evaluation; True where it is a new lowest. A loss that is only reached again is none."""
        if self.loss is not None and loss >= self.loss:
            self.waited += 1
            return False
        self.loss, self.step, self.waited = loss, step, 0
        return True


def evaluation_steps(steps: int, epochs: float, every: float) -> set[int]:
    """The optimiser steps, from 1 on, behind which the validation rows are evaluated.

    One each `every` of a pass over the rows, and the last, so that the end is compared with what was before it.
    """
    gap = every * steps / epochs
    return {min(steps, max(1, round(gap * i))) for i in range(1, int(steps / gap) + 1)} | {steps}
