"""Answers as server-sent events, written while they come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from aiohttp import web

from slmops.serve.answers import DONE, Reply, event, problem, usage_of
from slmops.serve.asking import Asked
from slmops.serve.failures import WHY, check_ended
from slmops.serve.generation import Piece


async def stream(
    request: web.Request, reply: Reply, answers: Sequence[Asked], *, with_usage: bool
) -> web.StreamResponse:
    """Send all answers in pieces.

    Raises:
        Failed: an answer ended early before anything was sent.
    """
    pieces = _merged(answers)
    # Until the first piece is there, what goes wrong can still be told as such.
    index, piece = await anext(pieces)
    check_ended(piece)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        for number in range(len(answers)):
            if opening := reply.first(number):
                await response.write(event(opening))
        while True:
            if piece.ended in WHY:
                await response.write(event(problem(WHY[piece.ended], "server_error", code=piece.ended)))
                break
            for told in reply.pieces(index, piece):
                await response.write(event(told))
            try:
                index, piece = await anext(pieces)
            except StopAsyncIteration:
                break
        if with_usage:
            await response.write(event(reply.usage_chunk(usage_of([answer.ticket for answer in answers]))))
        await response.write(DONE)
        await response.write_eof()
    return response


async def _merged(answers: Sequence[Asked]) -> AsyncIterator[tuple[int, Piece]]:
    """The pieces of all answers as they come, with whose they are."""
    queue: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()

    async def pass_on(index: int, answer: Asked) -> None:
        async for piece in answer.pieces():
            queue.put_nowait((index, piece))

    tasks = [asyncio.create_task(pass_on(index, answer)) for index, answer in enumerate(answers)]
    try:
        left = len(answers)
        while left:
            index, piece = await queue.get()
            left -= piece.ended is not None
            yield index, piece
    finally:
        for task in tasks:
            task.cancel()
