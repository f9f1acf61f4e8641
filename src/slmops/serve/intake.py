"""What comes in: who asks, what for, and of which model."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from slmops.serve.failures import bad
from slmops.serve.served import Served
from slmops.tasks import strict_json

CLIENT = web.RequestKey("client", str)
"""Who asks, by a name that tells nothing of a key."""

BODY = web.RequestKey("body", bytes)
"""What was sent, once it is there."""


@dataclass(frozen=True)
class Limits:
    """Of what a client may ask.

    Attributes:
        body_bytes: of a request.
        body_s: in which it must be there.
        answer_s: in which it is answered; what is not is given up.
        connections: at a time.
        idle_s: for which a connection may wait for a whole head of a request.
        stalled_s: for which a client may take nothing of what it is sent.
    """

    body_bytes: int = 4_000_000
    body_s: float = 30
    answer_s: float = 600
    connections: int = 10_000
    idle_s: float = 75
    stalled_s: float = 60


Body = TypeVar("Body", bound=BaseModel)


class Intake:
    """What all handlers are given requests by.

    Attributes:
        served: the model that is asked now.
        begun: seconds since 1970 at which it was there.
    """

    def __init__(self, served: Served, limits: Limits) -> None:
        self.limits = limits
        self.change(served)

    def change(self, served: Served) -> None:
        """Requests that come from now on ask `served`."""
        self.served, self.begun = served, int(time.time())

    def model(self, name: str) -> Served:
        """The model of that name.

        Raises:
            Failed: there is none.
        """
        known = {one.name: one for one in self.models()}
        if name not in known:
            message = f"there is no model {name[:80]!r} here, only {', '.join(known)}"
            raise bad(message, param="model", status=404, code="model_not_found")
        return known[name]

    def models(self) -> list[Served]:
        """The base, and what it is with each of its adapters."""
        return [self.served, *self.served.adapted.values()]

    def deadline(self) -> float:
        """When what is taken now must be answered, by `time.monotonic`."""
        return time.monotonic() + self.limits.answer_s

    async def body(self, request: web.Request, kind: type[Body]) -> Body:
        """What a request says.

        Raises:
            Failed: it comes too slowly, or is nothing that can be understood.
        """
        try:
            content = request[BODY] = await asyncio.wait_for(request.read(), self.limits.body_s)
        except TimeoutError:
            raise bad("the body did not come in time", status=408) from None
        try:
            return kind.model_validate(strict_json.loads(content.decode()))
        except ValidationError as error:
            place, message = _first_problem(error)
            raise bad(f"{place}: {message}" if place else message, param=place or None) from None
        except ValueError as error:
            said = "it is no UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            raise bad(f"the body cannot be read: {said}") from None


def _first_problem(error: ValidationError) -> tuple[str, str]:
    """Where a body is wrong, and how. Of a value that may be of several kinds, a kind that it has tells more."""
    problems = error.errors(include_url=False, include_input=False)
    told = min(problems, key=lambda one: one["type"].endswith("_type"))
    place = (part for part in told["loc"] if isinstance(part, int) or part.isidentifier())
    return ".".join(map(str, place)), told["msg"]
