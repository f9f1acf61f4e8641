"""A teacher behind a real HTTP server on loopback that counts, charges, and fails in every way a real one does."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from aiohttp import web

PROMPT_TOKENS, WORDS = 40, 3
"""Counted for every request, and written at most unless told."""

READ, WRITTEN = 2_000_000, 10_000_000
"""Picodollars per token: 2 and 10 USD per million."""


@dataclass(frozen=True)
class Act:
    """What the server does with one request.

    Attributes:
        how: `answer`s; sends a `status`; `reset`s the connection before, or `lost` after it has charged; `hang`s after
            it has charged; sends `half` a body, or `garbage`.
        reasoning: what was thought, kept apart from the text.
        headers: of a status.
    """

    how: Literal["answer", "status", "reset", "lost", "hang", "half", "garbage"] = "answer"
    text: str | None = None
    status: int = 200
    finish: str = "stop"
    tokens: int = WORDS
    usage: bool = True
    reasoning: str = ""
    headers: tuple[tuple[str, str], ...] = ()


Behave = Callable[[int, str], Act]
"""Number of the request, from 1, and the last message → what is done."""


def echo(_number: int, text: str) -> Act:
    return Act(text=text.upper())


class TeacherServer:
    """Runs in a thread of its own for the length of a `with` block.

    Attributes:
        asked: requests by their last message.
        requests: bodies, in order of arrival.
        charged: picodollars, for every answer that was written, whether it arrived or not.
        most_at_once: requests under way.
    """

    def __init__(self, behave: Behave = echo, *, delay_s: float = 0.0, idempotent: bool = False) -> None:
        self.behave, self.delay_s, self.idempotent = behave, delay_s, idempotent
        self.asked: Counter[str] = Counter()
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.charged = self.most_at_once = self.charged_requests = 0
        self._running = 0
        self._remembered: dict[str, bytes] = {}

    def __enter__(self) -> TeacherServer:
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def _serve(self, ready: threading.Event) -> None:
        async def main() -> None:
            self._stop = asyncio.Event()
            app = web.Application()
            self._add_routes(app)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.port = runner.addresses[0][1]
            ready.set()
            await self._stop.wait()
            await runner.cleanup()

        self._loop.run_until_complete(main())
        self._loop.close()

    def _add_routes(self, app: web.Application) -> None:
        app.router.add_post("/v1/chat/completions", self._complete)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        text = body["messages"][-1]["content"]
        self.asked[text] += 1
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        self._running += 1
        self.most_at_once = max(self.most_at_once, self._running)
        try:
            return await self._act(request, self.behave(self.asked.total(), text), text)
        finally:
            self._running -= 1

    async def _act(self, request: web.Request, act: Act, text: str) -> web.StreamResponse:
        key = request.headers["Idempotency-Key"]
        if self.idempotent and key in self._remembered:
            return web.Response(body=self._remembered[key], content_type="application/json")
        if act.how == "reset":
            request.transport.abort()
        if act.how == "status":
            return web.json_response({"error": {"message": "as told"}}, status=act.status, headers=dict(act.headers))
        if act.how == "reset":
            return web.Response()
        content = self._charge(act, text)
        self._remembered[key] = content
        await asyncio.sleep(self.delay_s)
        match act.how:
            case "lost":
                request.transport.abort()
            case "hang":
                await asyncio.sleep(5)
            case "garbage":
                return web.Response(body=b"<html>it works!</html>")
            case "half":
                response = web.StreamResponse(headers={"Content-Length": str(len(content))})
                await response.prepare(request)
                await response.write(content[:10])
                request.transport.abort()
                return response
        return web.Response(body=content, content_type="application/json")

    def _charge(self, act: Act, text: str) -> bytes:
        self.charged += PROMPT_TOKENS * READ + act.tokens * WRITTEN
        self.charged_requests += 1
        message = {"role": "assistant", "content": text.upper() if act.text is None else act.text}
        message |= {"reasoning_content": act.reasoning} if act.reasoning else {}
        answer: dict[str, Any] = {"choices": [{"index": 0, "message": message, "finish_reason": act.finish}]}
        if act.usage:
            answer["usage"] = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": act.tokens}
        return json.dumps(answer).encode()
