"""From the event loop to the scheduler's thread and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from slmops.serve.generation import Deliver, Generation, Piece
from slmops.serve.scheduler import Scheduler, Ticket


class Asked:
    """One answer on its way to a handler.

    Attributes:
        ticket: of the scheduler.
    """

    def __init__(
        self, scheduler: Scheduler, make: Callable[[Deliver], Generation], *, client: str, deadline: float | None
    ) -> None:
        """Queue what `make` makes.

        Raises:
            Refused: see `Scheduler.submit`.
        """
        loop, self._pieces = asyncio.get_running_loop(), asyncio.Queue[Piece]()
        job = make(lambda piece: _tell(loop, self._pieces, piece))
        self.ticket: Ticket = scheduler.submit(job, client=client, deadline=deadline)

    async def pieces(self) -> AsyncIterator[Piece]:
        """As they come; whoever stops listening gives the answer up."""
        try:
            while True:
                piece = await self._pieces.get()
                yield piece
                if piece.ended:
                    return
        finally:
            self.ticket.cancel()


def _tell(loop: asyncio.AbstractEventLoop, pieces: asyncio.Queue[Piece], piece: Piece) -> None:
    # A loop that is closed has nobody left who listens.
    if not loop.is_closed():
        loop.call_soon_threadsafe(pieces.put_nowait, piece)
