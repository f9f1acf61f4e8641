"""From the event loop to the scheduler's thread and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

from slmops.engines.base import Logits
from slmops.serve.accounts import note
from slmops.serve.choosing import Choosing, Found
from slmops.serve.generation import Deliver, Piece
from slmops.serve.job import Ended, Job
from slmops.serve.marking import Weighing
from slmops.serve.scheduler import Scheduler, Ticket, Worn
from slmops.serve.served import Served

Told = TypeVar("Told")


class Asked:
    """One answer on its way to a handler.

    Attributes:
        ticket: of the scheduler.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        make: Callable[[Deliver], Job],
        *,
        client: str,
        deadline: float | None,
        worn: Worn | None = None,
    ) -> None:
        """Queue what `make` makes.

        Raises:
            Refused: see `Scheduler.submit`.
        """
        loop, self._pieces = asyncio.get_running_loop(), asyncio.Queue[Piece]()
        job = make(lambda piece: _tell(loop, self._pieces, piece))
        self.ticket: Ticket = scheduler.submit(job, client=client, deadline=deadline, worn=worn)
        self._hear = note(self.ticket)

    async def pieces(self) -> AsyncIterator[Piece]:
        """As they come; whoever stops listening gives the answer up."""
        try:
            while True:
                piece = await self._pieces.get()
                self._hear(piece.text)
                yield piece
                if piece.ended:
                    return
        finally:
            self.ticket.cancel()


class Chosen:
    """The choice among the labels of a served model, on its way to a handler.

    Attributes:
        ticket: of the scheduler.
    """

    def __init__(
        self,
        served: Served,
        prompt: Sequence[int],
        *,
        client: str,
        deadline: float | None,
        worn: Worn | None = None,
    ) -> None:
        """Queue it.

        Raises:
            Refused: see `Scheduler.submit`.
        """
        loop, self._found = asyncio.get_running_loop(), asyncio.Queue[Logits | Ended]()
        job: Job
        if served.marker:
            job = Weighing(served.marker.reading(prompt), served.marker, self._tell(loop))
        else:
            job = Choosing(prompt, served.label_tree, len(served.labels), self._tell(loop))
        self.ticket = served.scheduler.submit(job, client=client, deadline=deadline, worn=worn)
        note(self.ticket)

    def _tell(self, loop: asyncio.AbstractEventLoop) -> Found:
        return lambda found: _tell(loop, self._found, found)

    async def likelihoods(self) -> Logits | Ended:
        """The log-likelihood of every label, or why there is none."""
        return await self._found.get()


def _tell(loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[Told], told: Told) -> None:
    # A loop that is closed has nobody left who listens.
    if not loop.is_closed():
        loop.call_soon_threadsafe(queue.put_nowait, told)
