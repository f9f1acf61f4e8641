"""Which adapters are in memory: at most so many, loaded when asked for, the longest unused given up first."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from slmops.engines.running import Adapting
from slmops.serve.failures import ended_early
from slmops.serve.metrics import Metrics
from slmops.serve.scheduler import Refused, Worn

_RETRY_S = 1


class Residents:
    """The adapters of one served bundle. Its methods are called in the event loop."""

    def __init__(
        self, running: Adapting, paths: Mapping[str, Path], metrics: Metrics, *, most: int, queue: int
    ) -> None:
        """`most` are in memory at a time; `queue` requests wait for room at most."""
        self._running, self._paths, self._metrics = running, paths, metrics
        self._most, self._queue, self._waiting = most, queue, 0
        self._loaded: OrderedDict[str, Any] = OrderedDict()
        self._users: Counter[str] = Counter()
        self._leaving: str | None = None
        self._turn, self._freed = asyncio.Lock(), asyncio.Event()

    @asynccontextmanager
    async def wearing(self, name: str, deadline: float) -> AsyncIterator[Worn]:
        """An adapter, which is in memory within.

        Args:
            deadline: by `time.monotonic`.

        Raises:
            Refused: too many wait for room.
            Failed: there was none until the deadline.
            BadInput: its file is not what it was.
        """
        adapter = await self._taken(name, deadline)
        self._users[name] += 1
        self._loaded.move_to_end(name)
        try:
            yield Worn(name, adapter)
        finally:
            self._users[name] -= 1
            self._freed.set()

    async def _taken(self, name: str, deadline: float) -> Any:
        if name in self._loaded and name != self._leaving:
            return self._loaded[name]
        if self._waiting >= self._queue:
            raise Refused(_RETRY_S)
        self._waiting += 1
        try:
            async with asyncio.timeout(deadline - time.monotonic()), self._turn:
                # Those that waited for the same one find it here.
                if name not in self._loaded:
                    await self._room()
                    self._loaded[name] = await asyncio.to_thread(self._running.load_adapter, self._paths[name])
                    self._metrics.adapters(len(self._loaded), loaded=True)
                return self._loaded[name]
        except TimeoutError:
            raise ended_early("deadline") from None
        finally:
            self._waiting -= 1

    async def _room(self) -> None:
        """Wait until there is room for one more.

        What is to leave takes no new requests, or those of others that are asked all the time would keep it out.
        """
        if len(self._loaded) < self._most:
            return
        unused = (name for name in self._loaded if not self._users[name])
        self._leaving = next(unused, next(iter(self._loaded)))
        try:
            while self._users[self._leaving]:
                self._freed.clear()
                await self._freed.wait()
            del self._loaded[self._leaving]
            self._metrics.adapters(len(self._loaded))
        finally:
            self._leaving = None
