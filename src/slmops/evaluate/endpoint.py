"""Asking an OpenAI-compatible endpoint many things at once, and keeping every answer as it comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slmops.errors import BadInput, SlmopsError
from slmops.evaluate.subjects import Endpoint
from slmops.tasks import Message

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_WRONG_REQUEST = (400, 401, 403, 404, 422)
"""Answers that no second try changes: the key, the model or the request is wrong."""


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
) -> None:
    """Ask for the most likely answer to every request; `keep` gets each under its key as soon as it is there.

    A record has `text`, `tokens` and `prompt_tokens` (None where the server does not count), `latency_ms` of the last
    try, and `alone`.

    Raises:
        BadInput: the endpoint refuses the key, the model or the request.
        SlmopsError: it cannot be reached, fails again and again, or answers nonsense. Nothing new is asked then; what
            was under way is waited for and kept.
    """
    asyncio.run(_ask(endpoint, requests, max_tokens, manner, keep))


async def _ask(
    endpoint: Endpoint,
    requests: Mapping[str, Sequence[Message]],
    max_tokens: int,
    manner: Manner,
    keep: Callable[[str, dict[str, Any]], None],
) -> None:
    from openai import AsyncOpenAI

    keys = list(requests)
    problems: list[SlmopsError] = []

    async with AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key=endpoint.key or "none",
        max_retries=manner.retries,
        timeout=manner.timeout_s,
    ) as client:

        async def work(waiting: list[str], alone: bool) -> None:
            while waiting and not problems:
                key = waiting.pop()
                try:
                    record = await _one(client, endpoint, requests[key], max_tokens)
                except SlmopsError as error:
                    problems.append(error)
                else:
                    keep(key, {**record, "alone": alone})

        first, rest = keys[: manner.alone][::-1], keys[manner.alone :][::-1]
        await work(first, True)
        await asyncio.gather(*(work(rest, False) for _ in range(manner.concurrency)))
    if problems:
        raise problems[0]


async def _one(client: AsyncOpenAI, endpoint: Endpoint, messages: Sequence[Message], max_tokens: int) -> dict[str, Any]:
    import openai

    begun = time.perf_counter()
    try:
        reply: Any = await client.chat.completions.create(
            model=endpoint.model,
            messages=list(messages),  # type: ignore[arg-type]
            max_tokens=max_tokens,
            temperature=0,
        )
    except openai.APIStatusError as error:
        raise _refused(endpoint, error.status_code, str(error)) from None
    except openai.APIConnectionError as error:
        cause = error.__cause__ or error
        raise SlmopsError(
            f"{endpoint.name}: {endpoint.base_url} does not answer: {type(cause).__name__}: {_clean(endpoint, cause)}",
            hint="see whether the server runs and the address is right",
        ) from None
    except (openai.OpenAIError, ValueError) as error:
        raise _nonsense(endpoint, _clean(endpoint, error)) from None
    return {**_read(endpoint, reply), "latency_ms": (time.perf_counter() - begun) * 1e3}


def _read(endpoint: Endpoint, reply: Any) -> dict[str, Any]:
    """Text and tokens of a reply. The SDK does not check what a server sends."""
    try:
        message = reply.choices[0].message
        text, usage = message.content, reply.usage
    except (AttributeError, IndexError, TypeError):
        raise _nonsense(endpoint, f"no choices in {str(reply)[:80]!r}") from None
    counts = {"tokens": "completion_tokens", "prompt_tokens": "prompt_tokens"}
    counted = {name: getattr(usage, theirs, None) for name, theirs in counts.items()}
    # A refusal has no content: the model was asked, and wrote nothing that counts.
    if not isinstance(text, str | None):
        raise _nonsense(endpoint, f"content is {text!r:.80}")
    return {"text": text or "", **{name: n if isinstance(n, int) else None for name, n in counted.items()}}


def _refused(endpoint: Endpoint, status: int, message: str) -> SlmopsError:
    said = f"{endpoint.name}: {endpoint.base_url} answers {status}: {_clean(endpoint, message)}"
    if status in _WRONG_REQUEST:
        return BadInput(said, hint="see to the model after `#`, the address and --key-env")
    return SlmopsError(said, hint="wait until the server is well")


def _nonsense(endpoint: Endpoint, what: str) -> SlmopsError:
    return SlmopsError(
        f"{endpoint.name}: {endpoint.base_url} does not speak the OpenAI protocol: {what}",
        hint="the address ends with /v1 in most servers",
    )


def _clean(endpoint: Endpoint, message: object) -> str:
    """On one line, short, and without the key, which some servers repeat."""
    text = " ".join(str(message).split())
    return (text.replace(endpoint.key, "…") if endpoint.key else text)[:200]
