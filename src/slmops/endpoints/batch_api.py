"""OpenAI's batch interface: a file of requests goes up, a batch is made of it, files of results come down."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from slmops.endpoints.client import Client, Nonsense

URL = "/v1/chat/completions"
"""What every request of a batch is for, as the interface calls it, whatever the provider's own address."""

_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})

_PAGES = 1000
"""Of the provider's list, at most."""


@dataclass(frozen=True)
class State:
    """Of a batch.

    Attributes:
        status: as the provider calls it.
        total, completed, failed: requests; 0 where the provider does not count.
        files: with results, and with errors.
        said: of a batch that was refused, why.
    """

    status: str
    total: int
    completed: int
    failed: int
    files: Sequence[str]
    said: str

    @property
    def ended(self) -> bool:
        return self.status in _ENDED


def line_of(key: str, model: str, messages: Sequence[Mapping[str, str]], sampling: Mapping[str, Any]) -> bytes:
    """One request as a line of a file; `key` comes back with its result."""
    body = {"model": model, "messages": list(messages), **sampling}
    line = {"custom_id": key, "method": "POST", "url": URL, "body": body}
    return json.dumps(line).encode() + b"\n"


async def upload(client: Client, content: bytes) -> str:
    """Give the provider a file of requests; its name for it.

    Raises:
        Failure: it did not take it.
    """
    from aiohttp import FormData

    form = FormData()
    form.add_field("purpose", "batch")
    form.add_field("file", io.BytesIO(content), filename="requests.jsonl", content_type="application/jsonl")
    return _text(await _said(client, "POST", "/files", form), "id")


async def hand_in(client: Client, file: str, window: str) -> str:
    """Have the requests of a file done; the provider's name for the batch.

    Raises:
        Failure: no name came. If it is `charged` or retryable, there may be a batch nevertheless; see `find`.
    """
    wanted = json.dumps({"input_file_id": file, "endpoint": URL, "completion_window": window}).encode()
    return _text(await _said(client, "POST", "/batches", wanted, {"Idempotency-Key": f"slmops-{file}"}), "id")


async def find(client: Client, file: str) -> str | None:
    """The batch that was made of a file, by the provider's list of all.

    Raises:
        Failure: the list does not come.
    """
    after = ""
    for _ in range(_PAGES):
        page = await _said(client, "GET", f"/batches?limit=100{after}")
        batches = page.get("data")
        if not isinstance(batches, list) or not all(isinstance(batch, dict) for batch in batches):
            raise Nonsense(f"no list of batches in {client.endpoint.clean(page)[:80]!r}")
        for batch in batches:
            if batch.get("input_file_id") == file:
                return _text(batch, "id")
        if not batches or not page.get("has_more"):
            break
        after = f"&after={quote(_text(batches[-1], 'id'), safe='')}"
    return None


async def look(client: Client, name: str) -> State:
    """How far a batch is.

    Raises:
        Failure: the provider does not say.
    """
    said = await _said(client, "GET", f"/batches/{quote(name, safe='')}")
    counts = said.get("request_counts")
    total, completed, failed = (
        counts.get(count) if isinstance(counts, dict) else None for count in ("total", "completed", "failed")
    )
    files = [file for file in (said.get("output_file_id"), said.get("error_file_id")) if isinstance(file, str) and file]
    errors = said.get("errors")
    why = errors.get("data") if isinstance(errors, dict) else None
    first = why[0].get("message") if isinstance(why, list) and why and isinstance(why[0], dict) else errors
    return State(_text(said, "status"), _whole(total), _whole(completed), _whole(failed), files, str(first or ""))


async def results(client: Client, file: str) -> AsyncIterator[dict[str, Any]]:
    """The results in a file as they come; what is no result, such as half a line at its end, is passed over.

    Raises:
        Failure: the file does not come, or breaks off.
    """
    async for line in client.lines(f"/files/{quote(file, safe='')}/content"):
        try:
            result = json.loads(line)
        except ValueError:
            continue
        if isinstance(result, dict):
            yield result


async def _said(
    client: Client, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    content = await client.send(method, path, body, headers=headers)
    try:
        said = json.loads(content)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise Nonsense(
            f"{path.partition('?')[0]} gives {client.endpoint.clean(content.decode('utf-8', 'replace'))!r:.80}"
        )
    return said


def _text(said: Mapping[str, Any], name: str) -> str:
    text = said.get(name)
    if not isinstance(text, str) or not text:
        raise Nonsense(f"no {name} in {json.dumps(said)[:80]!r}")
    return text


def _whole(count: Any) -> int:
    return count if type(count) is int and count >= 0 else 0
