"""A server in a thread, and somebody who asks it."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web

from slmops.serve.access import Keys
from slmops.serve.app import Server
from slmops.serve.intake import Limits
from slmops.serve.served import Served


class Reply(NamedTuple):
    status: int
    body: Any
    headers: Any


class Client:
    """Asks one server."""

    def __init__(self, port: int, served: Served) -> None:
        self.port, self.served = port, served

    def send(self, path: str, body: Any = None, *, method: str | None = None, **headers: str) -> Reply:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        told = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(told, timeout=60) as response:  # noqa: S310 - loopback
                return Reply(response.status, response.read(), response.headers)
        except urllib.error.HTTPError as error:
            return Reply(error.code, error.read(), error.headers)

    def ask(self, path: str, body: Any = None, **headers: str) -> Reply:
        status, content, told = self.send(path, body, **headers)
        return Reply(status, json.loads(content), told)

    def chat(self, text: str, **more: Any) -> Reply:
        return self.ask(
            "/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": text}], **more}
        )

    def stream(self, text: str, **more: Any) -> list[Any]:
        """The events of a stream, the last of which is the string `[DONE]`."""
        body = {"model": "tiny", "messages": [{"role": "user", "content": text}], "stream": True, **more}
        content = self.send("/v1/chat/completions", body).body.decode()
        told = [part.removeprefix("data: ") for part in content.split("\n\n") if part]
        return [part if part == "[DONE]" else json.loads(part) for part in told]


def listen(
    bundle: Path, keys: Keys | None = None, limits: Limits | None = None, served: Served | None = None, **told: int
) -> Iterator[Client]:
    served = served or Served(bundle, threads=1, **{"slots": 4, "queue": 64} | told)
    loop, ready, port = asyncio.new_event_loop(), threading.Event(), []

    async def start() -> web.AppRunner:
        app = Server(served, keys or Keys(), limits or Limits()).application()
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port.append(runner.addresses[0][1])
        ready.set()
        return runner

    runner = []
    thread = threading.Thread(target=lambda: (runner.append(loop.run_until_complete(start())), loop.run_forever()))
    thread.start()
    assert ready.wait(60)
    yield Client(port[0], served)
    served.scheduler.close(5)
    asyncio.run_coroutine_threadsafe(runner[0].cleanup(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
