"""What can go wrong, by who can mend it. Each error says what is wrong, where, and what to do next."""

from __future__ import annotations


class SlmopsError(Exception):
    """The base of every error that slmops raises on purpose.

    `str(error)` is one sentence with the place in it; `hint` is what to do next. The command line prints
    both without a traceback and ends with `exit_code`.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class BadInput(SlmopsError):
    """The recipe, the data or an argument is wrong; nothing was started."""

    exit_code = 2


class GateFailed(SlmopsError):
    """The evidence does not meet a threshold of the recipe."""

    exit_code = 3


class BudgetReached(SlmopsError):
    """A spending cap was reached; everything bought so far is kept."""

    exit_code = 4


class Interrupted(SlmopsError):
    """The user stopped the work; its state is saved and the same command goes on from there."""

    exit_code = 130
