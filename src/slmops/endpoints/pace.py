"""How many requests are under way at once: as many as the endpoint bears."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_STEADY = 2.0
"""Latencies below so many times the usual one are steady."""

_WEIGHT = 0.05
"""Of one latency in the running mean."""


class Pace:
    """Additive rise, multiplicative fall (Chiu and Jain 1989): begins with what is allowed, and never goes above it.

    An answer of steady latency raises the limit by 1/limit, so by one a round. A 429 halves it, but once a round only:
    those that were sent before the last fall say nothing new.
    """

    def __init__(self, most: int) -> None:
        self._most, self._limit = most, float(most)
        self._usual_s: float | None = None
        self._fell = 0.0

    @property
    def limit(self) -> int:
        """Requests that may be under way; at least 1."""
        return int(self._limit)

    def answered(self, latency_s: float) -> None:
        usual = latency_s if self._usual_s is None else self._usual_s
        self._usual_s = usual + _WEIGHT * (latency_s - usual)
        if latency_s <= _STEADY * usual:
            self._limit = min(float(self._most), self._limit + 1 / self._limit)

    def busy(self, sent: float, now: float) -> None:
        """The server had too many requests; `sent` and `now` are seconds of one clock."""
        if sent >= self._fell:
            self._limit, self._fell = max(1.0, self._limit / 2), now


class Turns:
    """Lets as many in as the pace allows; the others wait in line."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self._inside = 0
        self._line: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        while self._inside >= self.pace.limit:
            place = asyncio.get_running_loop().create_future()
            self._line.append(place)
            await place
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            self._wake()

    def _wake(self) -> None:
        free = self.pace.limit - self._inside
        while self._line and free > 0:
            place = self._line.popleft()
            if not place.done():
                place.set_result(None)
                free -= 1
