"""What a client is told instead of an answer: always in OpenAI's form, and never what somebody asked."""

from __future__ import annotations

import asyncio
import logging
import secrets
import traceback
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from slmops.serve.answers import Json, problem
from slmops.serve.generation import Piece
from slmops.serve.scheduler import Refused

WHY = {
    "cancelled": "the answer was given up, since the server is closing",
    "deadline": "the answer was not there in time",
    "failed": "the runtime failed",
}
"""Of an answer that ended early."""


class Failed(Exception):
    """What a client is told instead of an answer."""

    def __init__(self, status: int, content: Json, *, wait_s: int | None = None) -> None:
        super().__init__(content["error"]["message"])
        self.status, self.content = status, content
        self.headers = {} if wait_s is None else {"Retry-After": str(wait_s)}


def bad(message: str, *, param: str | None = None, status: int = 400, code: str | None = None) -> Failed:
    """A request that the client can mend."""
    return Failed(status, problem(message, "invalid_request_error", param=param, code=code))


def ended_early(ended: str) -> Failed:
    """An answer that did not come to its end; `ended` is one of `WHY`."""
    status = {"cancelled": 503, "deadline": 504}.get(ended, 500)
    return Failed(status, problem(WHY[ended], "server_error", code=ended))


def check_ended(piece: Piece) -> None:
    """
    Raises:
        Failed: its answer ended early.
    """
    if piece.ended in WHY:
        raise ended_early(piece.ended)


def telling(refused_because: Callable[[str], None]) -> Middleware:
    """Whatever goes wrong, in OpenAI's form; `refused_because` counts requests that were not taken."""

    @web.middleware
    async def told(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Failed as failed:
            return web.json_response(failed.content, status=failed.status, headers=failed.headers)
        except Refused as refused:
            return _refused(refused, refused_because)
        except web.HTTPException as error:
            message = f"{request.method} {request.path[:200]}: {error.reason}"
            headers = {name: value for name, value in error.headers.items() if name == "Allow"}
            return web.json_response(problem(message, "invalid_request_error"), status=error.status, headers=headers)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            return _bug(error)

    return told


def _refused(refused: Refused, count: Callable[[str], None]) -> web.Response:
    why, status = ("overloaded", 429) if refused.wait_s else ("closing", 503)
    count(why)
    headers = {"Retry-After": str(refused.wait_s or 1)}
    return web.json_response(problem(str(refused), "server_error", code=why), status=status, headers=headers)


def _bug(error: Exception) -> web.Response:
    number = secrets.token_hex(6)
    # What an error says may quote what was asked; where it was raised does not.
    places = "".join(traceback.format_tb(error.__traceback__))
    logging.getLogger(__name__).error("request %s failed: %s\n%s", number, type(error).__name__, places)
    return web.json_response(problem(f"the server failed; its log tells more of {number}", "server_error"), status=500)
