"""A server from start to end: it listens, and when it is told to stop it finishes what it has taken."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

from aiohttp import web

from slmops.serve.app import Server
from slmops.serve.connections import Connections, not_there

Beside = Callable[[asyncio.AbstractEventLoop], Sequence[Coroutine[Any, Any, None]]]
"""What runs beside the server until it stops; it may wait for signals of the loop."""


def serve(
    server: Server,
    sockets: Sequence[socket.socket],
    *,
    host: str,
    grace_s: float,
    started: Callable[[str], None],
    beside: Beside = lambda _loop: (),
) -> None:
    """Answer requests until SIGTERM or SIGINT.

    Args:
        sockets: of `slmops.serve.connections.bind`; they are closed at the end.
        host: as it was asked for.
        grace_s: for requests under way when it is told to stop; it takes no new ones then.
        started: told the address once requests are taken.

    Raises:
        BadInput: somebody else has begun to listen there.
    """
    asyncio.run(_serve(server, sockets, host, grace_s, started, beside))


async def _serve(
    server: Server,
    sockets: Sequence[socket.socket],
    host: str,
    grace_s: float,
    started: Callable[[str], None],
    beside: Beside,
) -> None:
    port = sockets[0].getsockname()[1]
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    try:
        async with listening(server, sockets, grace_s):
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop.set)
            others = [asyncio.create_task(one) for one in beside(loop)]
            started(f"http://{host}:{port}")
            await stop.wait()
            server.draining = True
            for one in others:
                one.cancel()
            await asyncio.to_thread(server.served.scheduler.close, grace_s)
    except OSError as error:
        raise not_there(host, port, error) from None


@contextlib.asynccontextmanager
async def listening(server: Server, sockets: Sequence[socket.socket], grace_s: float) -> AsyncIterator[Connections]:
    """Requests are answered within.

    Raises:
        OSError: a socket cannot be listened on.
    """
    # A client that goes away takes its handler with it, and that its answers.
    runner = web.AppRunner(server.application(), handler_cancellation=True, shutdown_timeout=grace_s)
    await runner.setup()
    assert runner.server  # noqa: S101 - it is there after `setup`
    connections = Connections(runner.server, server.intake.limits, server.refused)
    taken: list[asyncio.Server] = []
    try:
        for one in sockets:
            taken.append(await connections.listen(one))
        yield connections
    finally:
        for listener in taken:
            listener.close()
        await runner.cleanup()
        for one in sockets:
            one.close()
