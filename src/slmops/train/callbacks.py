"""What looks on while a model is trained, of the user's own: what it is shown, and what it may answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

EVENTS = ("on_start", "on_step", "on_evaluation", "on_checkpoint", "on_end")
"""Methods that a callback may have, each called with a `Moment`, and giving a `Reply` or None.

on_start: before the first step, and before the first one after a training was resumed, when `restore` was called.
on_step: after each step of the optimiser.
on_evaluation: when the validation rows were evaluated, which is where `train.stop_early` says so.
on_checkpoint: before one is written, so that `state` is of what came out of it.
on_end: after the last step.
"""

MAY_STOP = frozenset({"on_step", "on_evaluation"})
"""Events after which a training may end."""


@dataclass(frozen=True)
class Moment:
    """A training as a callback sees it.

    Attributes:
        step: steps of the optimiser that were taken.
        steps: those of the whole training.
        tokens: of prompts and answers that were learned from so far.
        losses: the terms of the last step by name, unweighted; read-only, empty before a step.
        gradient_norm: of the last step, before it was clipped; None before a step.
        validation: the last loss on the validation rows, nats per answer token; None before an evaluation.
    """

    step: int
    steps: int
    tokens: int
    losses: Mapping[str, float]
    gradient_norm: float | None
    validation: float | None


@dataclass(frozen=True)
class Reply:
    """What a callback answers.

    Attributes:
        figures: numbers by name; they go into the history of the training, its event files and the report.
        stop: why the training is to end now; None where it is not.
    """

    figures: Mapping[str, float] = field(default_factory=dict)
    stop: str | None = None


@runtime_checkable
class Remembers(Protocol):
    """A callback that a killed training goes on with as it was."""

    def state(self) -> Any:
        """Everything, as JSON data: it is written into each checkpoint."""

    def restore(self, state: Any) -> None:
        """Go on from what `state` gave; called once, on a new object, before `on_start`."""
