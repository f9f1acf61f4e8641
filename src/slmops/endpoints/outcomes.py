"""What became of each request of a batch that has ended, by the provider's files of results and errors."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from slmops.endpoints import batch_api
from slmops.endpoints.client import Client, Failure, Reply
from slmops.endpoints.retry import pause_s

Outcome = Reply | Failure


async def outcomes(
    client: Client, state: batch_api.State, name: str, keys: Collection[str], retries: int
) -> dict[str, Outcome]:
    """Of every request, by its key; results of others are passed over.

    Files with fewer answers than the provider counts are read again. A request without a result costs nothing when as
    many answers came as it counts; else nobody knows whether it was answered, and it may be charged.

    Args:
        name: the provider's, of the batch.
        retries: further tries to read the files.

    Raises:
        Failure: they cannot be read.
    """
    found: dict[str, Outcome] = {}
    for tries in range(1, retries + 2):
        last = tries > retries
        try:
            await _read(client, state, keys, found)
        except Failure as failure:
            if last or not failure.retryable:
                raise
            await asyncio.sleep(pause_s(tries, failure))
        else:
            short = answers(found) < state.completed
            if last or not short:
                break
            await asyncio.sleep(pause_s(tries, Failure("gives less than it counts")))
    charged = state.total == 0 or answers(found) < state.completed
    missing = Failure(f"has no result in the batch {name}, which is {state.status}", charged=charged)
    return {key: found.get(key, missing) for key in keys}


def answers(found: Mapping[str, Outcome]) -> int:
    """How many of them are."""
    return sum(isinstance(outcome, Reply) for outcome in found.values())


async def _read(client: Client, state: batch_api.State, keys: Collection[str], found: dict[str, Outcome]) -> None:
    for file in state.files:
        async for result in batch_api.results(client, file):
            key = result.get("custom_id")
            if isinstance(key, str) and key in keys:
                found.setdefault(key, _outcome(client, result))


def _outcome(client: Client, result: Mapping[str, Any]) -> Outcome:
    response = result.get("response")
    if not isinstance(response, dict) or type(status := response.get("status_code")) is not int:
        return Failure(f"has no result: {client.endpoint.clean(result.get('error'))}")
    body = response.get("body")
    if status != 200:
        error = body.get("error") if isinstance(body, dict) else body
        return client.refused(status, str(error.get("message") if isinstance(error, dict) else error))
    try:
        return client.reply(body)
    except Failure as nonsense:
        return nonsense
