"""Asking an OpenAI-compatible endpoint many things at once, and keeping every answer as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slmops.endpoints.client import Client, Failure, Reply
from slmops.endpoints.retry import complete
from slmops.errors import BadInput, SlmopsError
from slmops.evaluate.subjects import Endpoint
from slmops.privacy.audit import Gate
from slmops.tasks import Message


@dataclass(frozen=True)
class Manner:
    """How an endpoint is asked.

    Attributes:
        concurrency: requests at once.
        alone: requests asked first, one after the other: their time is the endpoint's latency.
        retries: further tries after 408, 409, 429, 5xx or a broken connection, with growing pauses or those that
            the server asks for in `Retry-After`.
        timeout_s: of one try.
    """

    concurrency: int
    alone: int
    retries: int
    timeout_s: float


def ask(
    endpoint: Endpoint,
    requests: Mapping[str, Sequence[Message]],
    max_tokens: int,
    manner: Manner,
    keep: Callable[[str, dict[str, Any]], None],
    gate: Gate | None = None,
) -> None:
    """Ask for the most likely answer to every request; `keep` gets each under its key as soon as it is there.

    A record has `text`, `tokens` and `prompt_tokens` (None where the server does not count), `latency_ms` of the last
    try, and `alone`. `gate`: see `Client`.

    Raises:
        BadInput: the endpoint refuses the key, the model or the request.
        SlmopsError: it cannot be reached, fails again and again, or answers nonsense. Nothing new is asked then; what
            was under way is waited for and kept.
    """
    asyncio.run(_ask(endpoint, requests, max_tokens, manner, keep, gate))


async def _ask(
    endpoint: Endpoint,
    requests: Mapping[str, Sequence[Message]],
    max_tokens: int,
    manner: Manner,
    keep: Callable[[str, dict[str, Any]], None],
    gate: Gate | None,
) -> None:
    keys = list(requests)
    problems: list[SlmopsError] = []
    connections = max(1, manner.concurrency)
    async with Client(endpoint.address, timeout_s=manner.timeout_s, connections=connections, gate=gate) as client:

        async def work(waiting: list[str], alone: bool) -> None:
            while waiting and not problems:
                key = waiting.pop()
                try:
                    reply = await complete(client, requests[key], manner.retries, max_tokens=max_tokens, temperature=0)
                except Failure as failure:
                    problems.append(_problem(endpoint, failure))
                except SlmopsError as problem:
                    problems.append(problem)
                else:
                    keep(key, {**_record(reply), "alone": alone})

        first, rest = keys[: manner.alone][::-1], keys[manner.alone :][::-1]
        await work(first, True)
        await asyncio.gather(*(work(rest, False) for _ in range(manner.concurrency)))
    if problems:
        raise problems[0]


def _record(reply: Reply) -> dict[str, Any]:
    return {
        "text": reply.text,
        "tokens": reply.completion_tokens,
        "prompt_tokens": reply.prompt_tokens,
        "latency_ms": reply.latency_s * 1e3,
    }


def _problem(endpoint: Endpoint, failure: Failure) -> SlmopsError:
    said = f"{endpoint.name}: {endpoint.base_url} {failure}"
    if failure.status is None or failure.retryable:
        return SlmopsError(said, hint=failure.hint)
    return BadInput(said, hint="see to the model after `#`, the address and --key-env")
