"""How long to wait before the next try."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any

from slmops.endpoints.client import Client, Failure, Nonsense, Reply

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 60.0


def pause_s(tries: int, failure: Failure) -> float:
    """Seconds to wait after so many tries: what the server asks for, else twice as long each time.

    Drawn from the upper half, so that many requests that failed together do not come back together.
    """
    if failure.wait_s is not None:
        return min(failure.wait_s, LONGEST_PAUSE_S)
    longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (tries - 1))
    return float(longest * random.uniform(0.5, 1.0))  # noqa: S311 - nobody gains by guessing it


async def complete(client: Client, messages: Sequence[Mapping[str, str]], retries: int, **sampling: Any) -> Reply:
    """Ask until a completion comes, at most 1 + `retries` times.

    Raises:
        Failure: the last one, or one that another try would not mend. Who talks nonsense is taken for no endpoint.
    """
    for tries in range(1, retries + 1):
        try:
            return await client.complete(messages, **sampling)
        except Failure as failure:
            if not failure.retryable or isinstance(failure, Nonsense):
                raise
            await asyncio.sleep(pause_s(tries, failure))
    return await client.complete(messages, **sampling)
