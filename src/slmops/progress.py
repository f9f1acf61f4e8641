"""How long work tells people where it is, without knowing who watches."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Evaluated = Callable[[int, float], None]
"""Told of each evaluation of a training on its validation rows: how many there were by then, and the loss in nats per
answer token. What it raises ends the training."""


class Task(Protocol):
    """One piece of work with a known or unknown end."""

    def advance(self, amount: float = 1, **figures: float) -> None:
        """Move on by `amount` units; `figures` are shown beside the bar (`loss=0.31`)."""


class Progress(Protocol):
    """Where work reports to. A room opens a task for anything that may take over two seconds."""

    def task(self, title: str, total: float | None, unit: str) -> AbstractContextManager[Task]:
        """A task of `total` units (None when unknown), e.g. `task("train student", 120_000, "tokens")`.

        Work that goes on where it was interrupted counts the units that remain. A unit of "" cannot be counted.
        """

    def note(self, text: str) -> None:
        """One line that stays on the screen and in the log."""


class _SilentTask:
    def advance(self, amount: float = 1, **figures: float) -> None:
        pass


class Silent:
    """Progress nobody watches: the default of every library call."""

    def task(self, title: str, total: float | None, unit: str) -> AbstractContextManager[Task]:  # noqa: ARG002
        return nullcontext(_SilentTask())

    def note(self, text: str) -> None:
        pass
