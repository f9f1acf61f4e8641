"""The HTTP server: OpenAI's addresses over one served bundle."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from slmops.bundle.manifest import CARD
from slmops.engines import Sampling
from slmops.errors import BadInput
from slmops.serve import pages
from slmops.serve.access import Keys
from slmops.serve.answers import DONE, Json, Reply, event, labelled, problem, usage
from slmops.serve.api import ChatRequest, ClassifyRequest, CompletionRequest, Generating
from slmops.serve.asking import Asked, Chosen
from slmops.serve.generation import Constraint, Deliver, Generation, Piece
from slmops.serve.metrics import CONTENT_TYPE
from slmops.serve.scheduler import Refused
from slmops.serve.served import Served
from slmops.tasks import strict_json

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Body = TypeVar("Body", bound=BaseModel)

_CLIENT = web.RequestKey("client", str)

_OPEN = frozenset({"/health", "/ready"}) | pages.PATHS
"""What is answered without a key."""


@dataclass(frozen=True)
class Limits:
    """Of what a client may ask.

    Attributes:
        body_bytes: of a request.
        body_s: in which it must be there.
        answer_s: in which it is answered; what is not is given up.
    """

    body_bytes: int = 4_000_000
    body_s: float = 30
    answer_s: float = 600


class Failed(Exception):
    """What a client is told instead of an answer."""

    def __init__(self, status: int, content: Json, *, wait_s: int | None = None) -> None:
        super().__init__(content["error"]["message"])
        self.status, self.content = status, content
        self.headers = {} if wait_s is None else {"Retry-After": str(wait_s)}


def _bad(message: str, *, param: str | None = None, status: int = 400, code: str | None = None) -> Failed:
    return Failed(status, problem(message, "invalid_request_error", param=param, code=code))


class Server:
    """The handlers over one bundle."""

    def __init__(self, served: Served, keys: Keys, limits: Limits) -> None:
        self.served, self._keys, self._limits = served, keys, limits
        self._begun = int(time.time())
        self.draining = False

    def application(self) -> web.Application:
        """What an HTTP server runs."""
        app = web.Application(client_max_size=self._limits.body_bytes, middlewares=[self._told, self._known])
        app.add_routes(
            [
                *pages.routes(),
                web.get("/card", self.card),
                web.get("/health", self.health),
                web.get("/ready", self.ready),
                web.get("/metrics", self.metrics),
                web.get("/v1/models", self.models),
                web.get("/v1/models/{model}", self.model),
                web.post("/v1/chat/completions", self.chat),
                web.post("/v1/completions", self.completion),
                web.post("/v1/classify", self.classify),
            ]
        )
        return app

    @web.middleware
    async def _told(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Whatever goes wrong, in OpenAI's form."""
        try:
            return await handler(request)
        except Failed as failed:
            return web.json_response(failed.content, status=failed.status, headers=failed.headers)
        except Refused as refused:
            self.served.metrics.refused("overloaded" if refused.wait_s else "closing")
            told = problem(str(refused), "server_error", code="overloaded" if refused.wait_s else "closing")
            headers = {"Retry-After": str(refused.wait_s or 1)}
            return web.json_response(told, status=429 if refused.wait_s else 503, headers=headers)
        except web.HTTPException as error:
            message = f"{request.method} {request.path[:200]}: {error.reason}"
            headers = {name: value for name, value in error.headers.items() if name == "Allow"}
            return web.json_response(problem(message, "invalid_request_error"), status=error.status, headers=headers)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            number = secrets.token_hex(6)
            # What an error says may quote what was asked; where it was raised does not.
            places = "".join(traceback.format_tb(error.__traceback__))
            logging.getLogger(__name__).error("request %s failed: %s\n%s", number, type(error).__name__, places)
            told = problem(f"the server failed; its log tells more of {number}", "server_error")
            return web.json_response(told, status=500)

    @web.middleware
    async def _known(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Nobody without a key, where there are keys."""
        client = self._keys.client(request.headers.get("Authorization"))
        if client is None and request.path not in _OPEN:
            told = problem("no such API key", "invalid_request_error", code="invalid_api_key")
            raise Failed(401, told)
        request[_CLIENT] = client or ""
        return await handler(request)

    async def health(self, _request: web.Request) -> web.Response:
        """The process lives."""
        return web.json_response({"status": "ok"})

    async def ready(self, _request: web.Request) -> web.Response:
        """Requests are taken."""
        return web.json_response({"ready": not self.draining}, status=503 if self.draining else 200)

    async def card(self, _request: web.Request) -> web.Response:
        """What the page tells of the model."""
        bundle, manifest = self.served.bundle, self.served.bundle.manifest
        path = bundle.folder / CARD
        card = path.read_text(encoding="utf-8") if CARD in manifest.files else ""
        named = {"name": self.served.name, "version": manifest.version, "engine": manifest.engine}
        told = {"task": manifest.task["kind"], "labels": list(self.served.labels), "card": card}
        return web.json_response({**named, **told})

    async def metrics(self, _request: web.Request) -> web.Response:
        """For Prometheus."""
        return web.Response(body=self.served.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def models(self, _request: web.Request) -> web.Response:
        """What can be asked."""
        return web.json_response({"object": "list", "data": [self._model()]})

    async def model(self, request: web.Request) -> web.Response:
        """One of them."""
        self._check_model(request.match_info["model"])
        return web.json_response(self._model())

    def _model(self) -> Json:
        return {"id": self.served.name, "object": "model", "created": self._begun, "owned_by": "slmops"}

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """The next message of a conversation."""
        asked = await self._body(request, ChatRequest)
        self._check_model(asked.model)
        if asked.tools and asked.tool_choice != "none":
            raise _bad("this model was not trained to call tools", param="tools", code="unsupported")
        prompt = self._prompt([{"role": said.role, "content": said.text} for said in asked.messages])
        reply = Reply(asked.model, True, self.served.bundle.tokenizer, asked.top)
        constraint = self._constraint(asked)
        return await self._answer(request, asked, reply, [prompt], asked.max_completion_tokens, constraint)

    async def completion(self, request: web.Request) -> web.StreamResponse:
        """What follows on a text."""
        asked = await self._body(request, CompletionRequest)
        self._check_model(asked.model)
        tokenizer = self.served.bundle.tokenizer
        given = [asked.prompt] if isinstance(asked.prompt, str) else asked.prompt
        of_tokens = bool(given) and isinstance(given[0], int)
        texts: list[list[int]] = [given] if of_tokens else [tokenizer.encode(text) for text in given]  # type: ignore[list-item,arg-type]
        try:
            prompts = [self.served.checked(text) for text in texts]
        except BadInput as error:
            raise _bad(str(error), param="prompt") from None
        reply = Reply(asked.model, False, tokenizer, asked.logprobs)
        return await self._answer(request, asked, reply, prompts, None, None)

    async def classify(self, request: web.Request) -> web.Response:
        """How likely each label of the task is, for one text or several."""
        asked = await self._body(request, ClassifyRequest)
        self._check_model(asked.model)
        if not self.served.labels:
            raise _bad("this model gives open answers; ask /v1/chat/completions", code="unsupported", status=404)
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        try:
            prompts = [self.served.label_prompt(text) for text in texts]
        except BadInput as error:
            raise _bad(str(error), param="input") from None
        deadline = time.monotonic() + self._limits.answer_s
        choices: list[Chosen] = []
        try:
            for prompt in prompts:
                choices.append(Chosen(self.served, prompt, client=request[_CLIENT], deadline=deadline))
            found = [await choice.likelihoods() for choice in choices]
        finally:
            for choice in choices:
                choice.ticket.cancel()
        likelihoods = [one for one in found if not isinstance(one, str)]
        if failed := [one for one in found if isinstance(one, str)]:
            raise _ended_early(failed[0])
        told = [labelled(i, self.served.labels, one, asked.abstain_below) for i, one in enumerate(likelihoods)]
        return web.json_response(
            {
                "object": "list",
                "model": asked.model,
                "data": told,
                "usage": usage(sum(map(len, prompts)), sum(choice.ticket.known for choice in choices), 0),
            }
        )

    async def _body(self, request: web.Request, kind: type[Body]) -> Body:
        """What a request says.

        Raises:
            Failed: it comes too slowly, or is nothing that can be understood.
        """
        try:
            content = await asyncio.wait_for(request.read(), self._limits.body_s)
        except TimeoutError:
            raise _bad("the body did not come in time", status=408) from None
        try:
            return kind.model_validate(strict_json.loads(content.decode()))
        except ValidationError as error:
            place, message = _first_problem(error)
            raise _bad(f"{place}: {message}" if place else message, param=place or None) from None
        except ValueError as error:
            said = "it is no UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            raise _bad(f"the body cannot be read: {said}") from None

    def _check_model(self, name: str) -> None:
        if name != self.served.name:
            message = f"there is no model {name[:80]!r} here, only {self.served.name}"
            raise _bad(message, param="model", status=404, code="model_not_found")

    def _prompt(self, messages: list[dict[str, str]]) -> list[int]:
        """The tokens of a conversation, with the instruction that the model was trained with in front."""
        instruction = self.served.bundle.manifest.task.get("instruction")
        if instruction and all(message["role"] != "system" for message in messages):
            messages = [{"role": "system", "content": instruction}, *messages]
        try:
            return self.served.prompt(messages)
        except BadInput as error:
            code = "context_length_exceeded" if "tokens" in str(error) else None
            raise _bad(str(error), param="messages", code=code) from None

    def _constraint(self, asked: ChatRequest) -> Callable[[], Constraint] | None:
        wanted = asked.response_format
        if wanted is None or wanted.type == "text":
            return None
        schema = wanted.json_schema.schema_ if wanted.json_schema else None
        try:
            self.served.grammars.json(schema)
        except BadInput as error:
            raise _bad(str(error), param="response_format") from None
        return lambda: self.served.grammars.json(schema)

    async def _answer(
        self,
        request: web.Request,
        asked: Generating,
        reply: Reply,
        prompts: list[list[int]],
        limit: int | None,
        constraint: Callable[[], Constraint] | None,
    ) -> web.StreamResponse:
        """All answers to all prompts, whole or as a stream."""
        answers: list[Asked] = []
        try:
            for prompt in prompts:
                for number in range(asked.n or 1):
                    sampling = self._sampling(asked, limit, number, len(prompt))
                    answers.append(self._ask(request, asked, reply, prompt, sampling, constraint))
            if asked.stream:
                return await self._stream(request, asked, reply, answers)
            told = await asyncio.gather(*(_all(answer) for answer in answers))
            for pieces in told:
                _check_ended(pieces[-1])
            return web.json_response(reply.whole(told, _usage_of(answers)))
        finally:
            for answer in answers:
                answer.ticket.cancel()

    def _ask(
        self,
        request: web.Request,
        asked: Generating,
        reply: Reply,
        prompt: list[int],
        sampling: Sampling,
        constraint: Callable[[], Constraint] | None,
    ) -> Asked:
        def make(deliver: Deliver) -> Generation:
            held = constraint() if constraint else None
            tokenizer, stops = self.served.bundle.tokenizer, asked.stops
            return Generation(prompt, sampling, deliver, tokenizer, stops=stops, tops=reply.tops, constraint=held)

        deadline = time.monotonic() + self._limits.answer_s
        return Asked(self.served.scheduler, make, client=request[_CLIENT], deadline=deadline)

    def _sampling(self, asked: Generating, limit: int | None, number: int, read: int) -> Sampling:
        own, room = self.served.bundle.manifest.generation, self.served.room - read
        most = limit or asked.max_tokens or own.max_tokens
        temperature = own.temperature if asked.temperature is None else asked.temperature
        top_p = own.top_p if asked.top_p is None else asked.top_p
        # Of several answers each is drawn for itself.
        seed = (secrets.randbits(48) if asked.seed is None else asked.seed % 2**48) + number
        return Sampling(min(most, room), temperature, top_p, seed)

    async def _stream(
        self, request: web.Request, asked: Generating, reply: Reply, answers: list[Asked]
    ) -> web.StreamResponse:
        pieces = _merged(answers)
        # Until the first piece is there, what goes wrong can still be told as such.
        index, piece = await anext(pieces)
        _check_ended(piece)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        for number in range(len(answers)):
            if opening := reply.first(number):
                await response.write(event(opening))
        with contextlib.suppress(ConnectionError):
            while True:
                if piece.ended in (None, "stop", "length"):
                    if piece.text or piece.ended or (reply.tops is not None and piece.token is not None):
                        await response.write(event(reply.piece(index, piece)))
                else:
                    await response.write(event(problem(_WHY[piece.ended], "server_error", code=piece.ended)))
                    break
                try:
                    index, piece = await anext(pieces)
                except StopAsyncIteration:
                    break
            if asked.stream_options and asked.stream_options.include_usage:
                await response.write(event(reply.usage_chunk(_usage_of(answers))))
            await response.write(DONE)
            await response.write_eof()
        return response


def _usage_of(answers: list[Asked]) -> Json:
    """A prompt with several answers counts once."""
    prompts = {id(answer.ticket.job.prompt): answer.ticket for answer in reversed(answers)}.values()
    read, known = sum(len(ticket.job.prompt) for ticket in prompts), sum(ticket.known for ticket in prompts)
    return usage(read, known, sum(answer.ticket.job.written for answer in answers))


def _first_problem(error: ValidationError) -> tuple[str, str]:
    """Where a body is wrong, and how. Of a value that may be of several kinds, a kind that it has tells more."""
    problems = error.errors(include_url=False, include_input=False)
    told = min(problems, key=lambda one: one["type"].endswith("_type"))
    place = (part for part in told["loc"] if isinstance(part, int) or part.isidentifier())
    return ".".join(map(str, place)), told["msg"]


_WHY = {
    "cancelled": "the answer was given up, since the server is closing",
    "deadline": "the answer was not there in time",
    "failed": "the runtime failed",
}


def _ended_early(ended: str) -> Failed:
    status = {"cancelled": 503, "deadline": 504}.get(ended, 500)
    return Failed(status, problem(_WHY[ended], "server_error", code=ended))


def _check_ended(piece: Piece) -> None:
    if piece.ended in _WHY:
        raise _ended_early(piece.ended)


async def _all(answer: Asked) -> list[Piece]:
    return [piece async for piece in answer.pieces()]


async def _merged(answers: list[Asked]) -> AsyncIterator[tuple[int, Piece]]:
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
