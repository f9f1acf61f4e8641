"""Connections: how many there may be, how long one may be silent, and what is told to who does not speak HTTP."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
from collections.abc import Callable
from typing import cast

from aiohttp import web

from slmops.errors import BadInput
from slmops.serve.answers import problem
from slmops.serve.intake import Limits

MOST = 10_000
"""Connections at a time, unless somebody says otherwise."""

_OTHER_FILES = 512
"""Open files that are left for anything but connections, those that are turned away among them."""

_TURNED_AWAY_S = 1.0
_BACKLOG = 1024


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets at all addresses of `host`; nobody is answered yet.

    Args:
        port: 0 takes any that is free.

    Raises:
        BadInput: there is no such address, or it is taken.
    """
    bound: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            bound.append(one := socket.socket(family, kind, protocol))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
    except OSError as error:
        for one in bound:
            one.close()
        raise not_there(host, port, error) from None
    return bound


def not_there(host: str, port: int, error: OSError) -> BadInput:
    """What is told where `host` and `port` cannot be listened on."""
    hint = "is it in use? Give another --port"
    return BadInput(f"cannot listen on {host}:{port}: {error.strerror or error}", hint=hint)


def room_for(wanted: int | None) -> int:
    """How many connections there may be, once this process may open as many files as the system lets it.

    Args:
        wanted: None for `MOST`, or what there is room for.

    Raises:
        BadInput: the system lets it open fewer files than that.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    room = max(1, hard - _OTHER_FILES) if hard != resource.RLIM_INFINITY else wanted or MOST
    if wanted and wanted > room:
        raise BadInput(
            f"{wanted} connections are more than this process may open files for: {room}",
            hint=f"ulimit -n {wanted + _OTHER_FILES}, or a smaller --max-connections",
        )
    return wanted or min(MOST, room)


class Connections:
    """Makes what answers a connection; used as the factory of `loop.create_server`."""

    def __init__(self, server: web.Server, limits: Limits, refused: Callable[[str], None]) -> None:
        """`refused` counts those that are turned away."""
        self._server, self._limits, self._refused = server, limits, refused
        self._loop = asyncio.get_running_loop()
        self.open = 0

    def __call__(self) -> asyncio.Protocol:
        """See `asyncio.loop.create_server`."""
        if self.open >= self._limits.connections:
            self._refused("connections")
            return _TurnedAway(self._limits.connections)
        return Connection(self, self._server, self._limits, self._loop)

    async def listen(self, where: socket.socket) -> asyncio.Server:
        """Answer whoever comes to a bound socket."""
        return await self._loop.create_server(self, sock=where, backlog=_BACKLOG)


class Connection(web.RequestHandler):
    """One of them.

    aiohttp closes it when a request's head has not come within `idle_s`, be it that nothing comes or little at a time.
    """

    __slots__ = ("_all", "_stalled_s")

    def __init__(self, all: Connections, server: web.Server, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server, loop=loop, access_log=None, keepalive_timeout=limits.idle_s)  # type: ignore[arg-type]
        self._all, self._stalled_s = all, limits.stalled_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._all.open += 1
        # Who takes nothing of an answer is given up by the system, whatever of it waits in which buffer.
        where = transport.get_extra_info("socket")
        where.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._stalled_s * 1000))
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """See `asyncio.Protocol`."""
        self._all.open -= 1
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,  # noqa: ARG002
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """What is told to who does not speak HTTP; aiohttp's own answer would be a text, and a traceback in the log."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun")
        kind = "invalid_request_error" if status < 500 else "server_error"
        # What a parser says may quote what it was sent.
        said = "this is no HTTP that can be read, or its head is too long" if status < 500 else "the server failed"
        response = web.json_response(problem(said, kind), status=status)
        response.force_close()
        return response


class _TurnedAway(asyncio.Protocol):
    """A connection too many: told so, and closed."""

    def __init__(self, most: int) -> None:
        said = problem(f"there are {most} connections, and no more are taken", "server_error", code="overloaded")
        body = json.dumps(said).encode()
        head = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
        self._answer = f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # What a client has sent and nobody has read would undo the answer, so it gets a moment to say it.
        self._wait = asyncio.get_running_loop().call_later(_TURNED_AWAY_S, self._tell)

    def data_received(self, data: bytes) -> None:  # noqa: ARG002
        self._tell()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._wait.cancel()

    def _tell(self) -> None:
        self._wait.cancel()
        if not self._transport.is_closing():
            self._transport.write(self._answer)
            self._transport.close()
