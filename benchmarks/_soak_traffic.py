"""Clients of all kinds: those that ask and read, that hang up, that read slowly, and that send what is no request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp

_STUCK_S = 120.0
_SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["late", "lost"]}, "note": {"type": "string", "maxLength": 20}},
    "required": ["kind", "note"],
    "additionalProperties": False,
}
_BAD = [b"{", b"\xff", b"[" * 10_000, b'{"model": "soak"}', b'{"model": "other", "messages": []}', b'{"n": 1e99}']
_NO_HTTP = [b"\x16\x03\x01", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 1000, b""]


@dataclass
class Tally:
    """What came of requests.

    Attributes:
        kinds: how many of each were made.
        statuses: of answers.
        tokens: written to those who read to the end.
        stuck: that were not over in `_STUCK_S`.
        failed: that were answered by 5xx, or by an error within a stream.
        odd: that should have been answered otherwise.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    tokens: int = 0
    stuck: int = 0
    failed: int = 0
    odd: int = 0


class Traffic:
    """One client after the other, until it is told to stop."""

    def __init__(self, address: str, model: str, texts: list[str], seed: int, tally: Tally) -> None:
        self._address, self._model, self._texts, self._tally = address, model, texts, tally
        self._random = random.Random(seed)  # noqa: S311 - no secret
        port = address.split(":")[2].partition("/")[0]
        self._at = ("127.0.0.1", int(port))
        self._kinds = {
            self.whole: 6,
            self.streamed: 6,
            self.several: 2,
            self.held: 2,
            self.leaving: 3,
            self.slow: 1,
            self.bad: 3,
            self.no_http: 1,
        }

    async def run(self, until: asyncio.Event) -> None:
        async with aiohttp.ClientSession() as self._session:
            while not until.is_set():
                (kind,) = self._random.choices(list(self._kinds), list(self._kinds.values()))
                self._tally.kinds[kind.__name__] += 1
                try:
                    await asyncio.wait_for(kind(), _STUCK_S)
                except TimeoutError:
                    self._tally.stuck += 1
                except (aiohttp.ClientError, OSError):
                    self._tally.failed += 1

    def _body(self, **more: Any) -> dict[str, Any]:
        shared = "You answer customers of a shop, politely and in a sentence or two. " * self._random.choice((0, 1, 6))
        text = shared + self._random.choice(self._texts) * self._random.choice((1, 1, 1, 4))
        told = {"max_tokens": self._random.randint(1, 64), "temperature": self._random.choice((0, 1.0))}
        return {"model": self._model, "messages": [{"role": "user", "content": text}], **told, **more}

    def _ask(self, body: dict[str, Any] | bytes) -> Any:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._session.post(f"{self._address}/chat/completions", data=content)

    async def _read(self, body: dict[str, Any] | bytes, expected: int = 200) -> None:
        async with self._ask(body) as reply:
            content = await reply.json(content_type=None)
            self._told(reply.status, expected)
            if reply.status == 200:
                self._tally.tokens += content["usage"]["completion_tokens"]

    def _told(self, status: int, expected: int) -> None:
        self._tally.statuses[status] += 1
        self._tally.failed += status >= 500
        self._tally.odd += status != expected and status < 500

    async def whole(self) -> None:
        await self._read(self._body())

    async def several(self) -> None:
        await self._read(self._body(n=self._random.randint(2, 4), logprobs=True, top_logprobs=5, stop=["ing", "\n"]))

    async def held(self) -> None:
        form = {"name": "x", "schema": {**_SCHEMA, "title": str(self._random.randrange(500))}}
        await self._read(self._body(response_format={"type": "json_schema", "json_schema": form}))

    async def bad(self) -> None:
        body = self._random.choice(_BAD)
        await self._read(body, 404 if b"other" in body and b"[{" in body else 400)

    async def streamed(self) -> None:
        await self._stream(0.0)

    async def slow(self) -> None:
        await self._stream(self._random.uniform(0.05, 0.3))

    async def _stream(self, pause_s: float) -> None:
        async with self._ask(self._body(stream=True, stream_options={"include_usage": True})) as reply:
            self._told(reply.status, 200)
            last = b""
            async for line in reply.content:
                self._tally.failed += line.startswith(b'data: {"error"')
                last = line.strip() or last
                await asyncio.sleep(pause_s)
            self._tally.failed += last != b"data: [DONE]"

    async def leaving(self) -> None:
        """Hang up while the answer is written, or before."""
        asking = asyncio.create_task(self._stream(0.0))
        await asyncio.sleep(self._random.uniform(0, 0.3))
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking

    async def no_http(self) -> None:
        """Something else, or half of a head."""
        reader, writer = await asyncio.open_connection(*self._at)
        writer.write(self._random.choice(_NO_HTTP))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reader.read(), self._random.uniform(0, 2))
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
