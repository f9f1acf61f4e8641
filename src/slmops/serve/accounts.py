"""What is known of a request once it is over, for its line in the log and for its trace."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.typedefs import Handler

from slmops.serve.answers import usage_of
from slmops.serve.intake import BODY, CLIENT
from slmops.serve.scheduler import Ticket

GONE = 499
"""In place of a status, of a request whose client left before it was answered (nginx's number)."""

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_SALT = secrets.token_bytes(16)


@dataclass
class Account:
    """One request.

    Attributes:
        id: that its client gave, or one of ours.
        route: its address, with names in place of what a client chose; empty where there is none such.
        traceparent: the trace that it belongs to, as its client told (W3C Trace Context).
        client: by a key or an address, as a digest.
        came: by `time.monotonic`; `came_ns` since 1970.
        status: of its answer.
        tickets: of all that was run for it in the batch.
        beside: tokens that were read for it beside the batch.
        asked: its body, and `said` the text of each answer; None unless content is kept.
    """

    id: str
    method: str
    route: str
    traceparent: str | None
    client: str = ""
    came: float = field(default_factory=time.monotonic)
    came_ns: int = field(default_factory=time.time_ns)
    took_s: float = 0
    status: int = GONE
    tickets: list[Ticket] = field(default_factory=list)
    beside: int = 0
    asked: str | None = None
    said: list[str] | None = None

    @property
    def tokens(self) -> tuple[int, int, int]:
        """How many were read, how many of these were known, and how many written."""
        used = usage_of(self.tickets)
        known: int = used["prompt_tokens_details"]["cached_tokens"]
        return used["prompt_tokens"] + self.beside, known, used["completion_tokens"]

    @property
    def adapter(self) -> str | None:
        """The name of the adapter that was run."""
        return next((ticket.worn.name for ticket in self.tickets if ticket.worn), None)

    @property
    def ran(self) -> bool:
        """Whether the model was asked at all."""
        return bool(self.tickets or self.beside)

    @property
    def first_token_s(self) -> float | None:
        """From its coming to the first token of any answer."""
        return min((ticket.times.first - self.came for ticket in self.tickets if ticket.times.first), default=None)

    @property
    def per_token_s(self) -> float | None:
        """For each token after the first of an answer."""
        # A scheduler may yet have to write down the end of what it has given to us.
        over = self.came + self.took_s
        begun = [(ticket, ticket.times.first) for ticket in self.tickets]
        told = [((ticket.times.ended or over) - first, ticket.job.written - 1) for ticket, first in begun if first]
        tokens = sum(written for _, written in told)
        return sum(took for took, written in told if written > 0) / tokens if tokens > 0 else None

    @property
    def error(self) -> str | None:
        """Why an answer ended early, where one did."""
        bad = [ticket.ended for ticket in self.tickets if ticket.ended in ("cancelled", "deadline", "failed")]
        return bad[0] if bad else None


Sink = Callable[[Account], None]
"""Takes the account of a request that is over, and returns at once."""

_CURRENT: ContextVar[Account | None] = ContextVar("account", default=None)
_ACCOUNT = web.RequestKey("account", Account)


def note(ticket: Ticket) -> Callable[[str], None]:
    """Put what is run on the account of the request that is being answered; returned is what takes its text."""
    account = _CURRENT.get()
    if account is None:
        return lambda _text: None
    account.tickets.append(ticket)
    said, number = account.said, len(account.tickets) - 1
    if said is None:
        return lambda _text: None
    said.append("")

    def hear(text: str) -> None:
        said[number] += text

    return hear


def note_read(tokens: int) -> None:
    """Put tokens that are read beside the batch on the account of the request that is being answered."""
    if account := _CURRENT.get():
        account.beside += tokens


class Accounts:
    """Keeps the account of every request, and gives it to all who want it."""

    def __init__(self, sinks: Sequence[Sink] = (), *, content: bool = False) -> None:
        """`content` keeps what is asked and answered."""
        self._sinks, self._content = sinks, content
        self._open: set[asyncio.Task[object]] = set()

    def install(self, app: web.Application) -> None:
        """Let every answer carry the id of its request."""
        app.on_response_prepare.append(_signed)

    async def until_over(self) -> None:
        """Return when all requests that are under way now are answered."""
        if under_way := set(self._open):
            await asyncio.wait(under_way)

    @web.middleware
    async def keeping(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Around all that answers a request."""
        account = request[_ACCOUNT] = self._opened(request)
        # A request has a task, and so a context, of its own.
        _CURRENT.set(account)
        if task := asyncio.current_task():
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        try:
            response = await handler(request)
            account.status = response.status
            return response
        finally:
            self._close(account, request)

    def _opened(self, request: web.Request) -> Account:
        given = request.headers.get("X-Request-Id", "")
        id = given if _ID.fullmatch(given) else secrets.token_hex(16)
        resource = request.match_info.route.resource
        route = resource.canonical if resource else ""
        account = Account(id, request.method, route, request.headers.get("traceparent"))
        account.said = [] if self._content else None
        return account

    def _close(self, account: Account, request: web.Request) -> None:
        account.took_s = time.monotonic() - account.came
        account.client = request.get(CLIENT) or _digest(request.remote or "")
        if self._content and (body := request.get(BODY)) is not None:
            account.asked = body.decode(errors="replace")
        for sink in self._sinks:
            sink(account)


def _digest(address: str) -> str:
    # Salted, since there are few enough addresses to try them all.
    return hashlib.blake2s(address.encode(), key=_SALT, digest_size=8).hexdigest()


async def _signed(request: web.BaseRequest, response: web.StreamResponse) -> None:
    response.headers["X-Request-Id"] = request[_ACCOUNT].id
