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

from slmops.serve.access import Keys
from slmops.serve.accounts import Accounts
from slmops.serve.app import Server
from slmops.serve.connections import Connections, bind
from slmops.serve.intake import Limits
from slmops.serve.run import listening
from slmops.serve.served import Served


class Reply(NamedTuple):
    status: int
    body: Any
    headers: Any


class Client:
    """Asks one server.

    Attributes:
        connections: of the server, which runs in `loop`.
    """

    def __init__(
        self, port: int, served: Served, server: Server, connections: Connections, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.port, self.served, self.server, self.connections, self.loop = port, served, server, connections, loop

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
    bundle: Path,
    keys: Keys | None = None,
    limits: Limits | None = None,
    served: Served | None = None,
    accounts: Accounts | None = None,
    **told: int,
) -> Iterator[Client]:
    served = served or Served(bundle, threads=1, **{"slots": 4, "queue": 64} | told)
    server = Server(served, keys or Keys(), limits or Limits(), accounts)
    sockets, ready = bind("127.0.0.1", 0), threading.Event()
    loop, stop, found = asyncio.new_event_loop(), asyncio.Event(), []

    async def answer() -> None:
        async with listening(server, sockets, 30) as connections:
            found.append(connections)
            ready.set()
            await stop.wait()
            await asyncio.to_thread(server.served.scheduler.close, 5)

    thread = threading.Thread(target=loop.run_until_complete, args=(answer(),), daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield Client(sockets[0].getsockname()[1], served, server, found[0], loop)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
    assert not thread.is_alive()
    loop.close()
