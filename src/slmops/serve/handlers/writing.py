"""What requests for text have in common: every answer to every prompt, whole or as a stream."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from slmops.engines import Sampling
from slmops.serve.answers import Reply, usage_of
from slmops.serve.api import Generating
from slmops.serve.asking import Asked
from slmops.serve.failures import check_ended
from slmops.serve.generation import Constraint, Deliver, Generation, Piece
from slmops.serve.intake import CLIENT, Intake
from slmops.serve.job import Job
from slmops.serve.scheduler import Worn
from slmops.serve.served import Served
from slmops.serve.streams import stream


@dataclass(frozen=True)
class Wanted:
    """What a request wants written.

    Attributes:
        prompts: token ids of each, checked.
        most: tokens of an answer; None for the bundle's.
        constraint: makes the form of one answer; None for any.
        job: what answers a prompt, of the number of the answer; None writes.
    """

    served: Served
    asked: Generating
    reply: Reply
    prompts: list[list[int]]
    most: int | None = None
    constraint: Callable[[], Constraint] | None = None
    job: Callable[[list[int], int, Deliver], Job] | None = None


async def write(intake: Intake, request: web.Request, wanted: Wanted) -> web.StreamResponse:
    """All answers to all prompts.

    Raises:
        Failed: one ended early.
        Refused: see `Scheduler.submit` and `Served.wearing`.
    """
    async with wanted.served.wearing(intake.deadline()) as worn:
        return await _written(intake, request, wanted, worn)


async def _written(intake: Intake, request: web.Request, wanted: Wanted, worn: Worn | None) -> web.StreamResponse:
    answers: list[Asked] = []
    asked, options = wanted.asked, wanted.asked.stream_options
    try:
        for prompt in wanted.prompts:
            for number in range(asked.n or 1):
                answers.append(_ask(intake, request, wanted, prompt, number, worn))
        if asked.stream:
            return await stream(request, wanted.reply, answers, with_usage=bool(options and options.include_usage))
        told = await asyncio.gather(*(_all(answer) for answer in answers))
        for pieces in told:
            check_ended(pieces[-1])
        return web.json_response(wanted.reply.whole(told, usage_of([answer.ticket for answer in answers])))
    finally:
        for answer in answers:
            answer.ticket.cancel()


def _ask(
    intake: Intake, request: web.Request, wanted: Wanted, prompt: list[int], number: int, worn: Worn | None
) -> Asked:
    job = wanted.job or partial(_generation, wanted)
    make = partial(job, prompt, number)
    return Asked(wanted.served.scheduler, make, client=request[CLIENT], deadline=intake.deadline(), worn=worn)


def _generation(wanted: Wanted, prompt: list[int], number: int, deliver: Deliver) -> Generation:
    sampling, held = _sampling(wanted, number, len(prompt)), wanted.constraint() if wanted.constraint else None
    tokenizer, stops, tops = wanted.served.bundle.tokenizer, wanted.asked.stops, wanted.reply.tops
    guesser = wanted.served.guesser(prompt)
    return Generation(prompt, sampling, deliver, tokenizer, stops=stops, tops=tops, constraint=held, guesser=guesser)


def _sampling(wanted: Wanted, number: int, read: int) -> Sampling:
    asked, own = wanted.asked, wanted.served.bundle.asked.generation
    most = wanted.most or asked.max_tokens or own.max_tokens
    temperature = own.temperature if asked.temperature is None else asked.temperature
    top_p = own.top_p if asked.top_p is None else asked.top_p
    # Of several answers each is drawn for itself.
    seed = (secrets.randbits(48) if asked.seed is None else asked.seed % 2**48) + number
    return Sampling(min(most, wanted.served.room - read), temperature, top_p, seed)


async def _all(answer: Asked) -> list[Piece]:
    return [piece async for piece in answer.pieces()]
