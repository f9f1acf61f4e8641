"""What a recipe leaves open of a training, decided by the memory that there is.

What is decided leaves the result as it is, to rounding: a batch in pieces, and activations that are computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from slmops.console import size
from slmops.errors import BadInput
from slmops.recipe.training import Optimisation
from slmops.train.memory import Memory

Need = Callable[[Optimisation, int], Memory]
"""What a training needs with settings that leave nothing open, and with so many pieces of a batch."""


@dataclass(frozen=True)
class Settled:
    """A training of which nothing is left open.

    Attributes:
        pieces: that the rows of a batch go through the model in, one after the other.
        memory: bytes that it needs so.
        available: bytes that there are.
    """

    settings: Optimisation
    pieces: int
    memory: Memory
    available: int

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.available

    def said(self) -> str:
        """One line for people, of what was decided."""
        again = "computed again" if self.settings.checkpoint_activations else "kept"
        batch = "whole" if self.pieces == 1 else f"in {self.pieces} pieces"
        needs = f"{size(self.memory.total)} of {size(self.available)} of memory"
        return f"activations are {again}, each batch goes through {batch}: {needs}"


def settled(settings: Optimisation, need: Need, available: int, *, can: bool, rows: int) -> Settled:
    """The first way to train that fits, in the order of what they cost; where none does, the last and smallest.

    A batch is halved as often as it takes, which costs little while its pieces have some tokens. Where even single rows
    do not fit, activations are computed again, which costs a third of the time, in as few pieces as fit then.

    Args:
        available: bytes, before the model was loaded.
        can: whether the model can compute its activations again.
        rows: of the largest batch.
    """
    for one, pieces in _ways(settings, can, rows):
        way = Settled(one, pieces, need(one, pieces), available)
        if way.fits:
            break
    return way


def _ways(settings: Optimisation, can: bool, rows: int) -> Iterator[tuple[Optimisation, int]]:
    again = settings.checkpoint_activations
    choices = [False, *([True] if can else [])] if again == "auto" else [again]
    for choice in choices:
        told = {"checkpoint_activations": choice, "accumulate": settings.batches_per_step}
        pieces = 1
        yield settings.model_copy(update=told), pieces
        while settings.accumulate == "auto" and pieces < rows:
            pieces = min(2 * pieces, rows)
            yield settings.model_copy(update=told), pieces


def check_fits(found: Settled, remedy: Callable[[], str]) -> None:
    """Refuse a training that would not fit.

    Args:
        remedy: what to change.

    Raises:
        BadInput: says what needs how much, and what to change.
    """
    if found.fits:
        return
    parts = ", ".join(f"{name} {size(count)}" for name, count in asdict(found.memory).items() if count)
    raise BadInput(
        f"training needs about {size(found.memory.total)} of memory ({parts}) and {size(found.available)} are "
        "available",
        hint=remedy(),
    )
