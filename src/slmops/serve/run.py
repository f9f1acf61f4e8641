"""A server from start to end: it listens, and when it is told to stop it finishes what it has taken."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import Callable

from aiohttp import web

from slmops.errors import BadInput
from slmops.serve.app import Server

_BACKLOG = 1024


def serve(server: Server, *, host: str, port: int, grace_s: float, started: Callable[[str], None]) -> None:
    """Answer requests until SIGTERM or SIGINT.

    Args:
        port: 0 takes any that is free.
        grace_s: for requests under way when it is told to stop; it takes no new ones then.
        started: told the address once requests are taken.

    Raises:
        BadInput: it cannot listen there.
    """
    _many_connections()
    asyncio.run(_serve(server, host, port, grace_s, started))


async def _serve(server: Server, host: str, port: int, grace_s: float, started: Callable[[str], None]) -> None:
    # A client that goes away takes its handler with it, and that its answers.
    runner = web.AppRunner(server.application(), access_log=None, handler_cancellation=True, shutdown_timeout=grace_s)
    await runner.setup()
    site = web.TCPSite(runner, host, port, backlog=_BACKLOG)
    try:
        await site.start()
    except OSError as error:
        await runner.cleanup()
        raise BadInput(
            f"cannot listen on {host}:{port}: {error.strerror or error}", hint="is it in use? Give another --port"
        ) from None
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    bound = runner.addresses[0]
    started(f"http://{host}:{bound[1]}")
    await stop.wait()
    server.draining = True
    await asyncio.to_thread(server.served.scheduler.close, grace_s)
    await runner.cleanup()


def _many_connections() -> None:
    """As many open files as the system lets us: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
