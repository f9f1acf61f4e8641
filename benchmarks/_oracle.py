"""A teacher on loopback that knows the label of every text: what a perfect one behind an endpoint would answer."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Mapping

from aiohttp import web


class Oracle:
    """Answers for the length of a `with` block, in a thread of its own.

    Attributes:
        asked: requests by their text.
    """

    def __init__(self, answers: Mapping[str, str], port: int) -> None:
        self.answers, self.port = answers, port
        self.asked: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Oracle:
        self._loop, self._ready, self._failed = asyncio.new_event_loop(), threading.Event(), ""
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()), daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failed:
            raise OSError(self._failed)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self.port).start()
            self.port = runner.addresses[0][1]
        except OSError as error:
            self._failed = str(error)
            self._end.set()
        self._ready.set()
        await self._end.wait()
        await runner.cleanup()

    async def _complete(self, request: web.Request) -> web.Response:
        text = json.loads(await request.read())["messages"][-1]["content"]
        self.asked[text] += 1
        message = {"role": "assistant", "content": self.answers[text]}
        told = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        return web.json_response(told | {"usage": {"prompt_tokens": 20, "completion_tokens": 2}})
