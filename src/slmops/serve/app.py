"""The HTTP server: which address is answered by whom, and who may ask."""

from __future__ import annotations

from functools import partial

from aiohttp import web
from aiohttp.typedefs import Handler

from slmops.serve import pages
from slmops.serve.access import Keys
from slmops.serve.accounts import Accounts
from slmops.serve.answers import problem
from slmops.serve.api import ChatRequest, ClassifyRequest, CompletionRequest, EmbeddingsRequest
from slmops.serve.failures import Failed, telling
from slmops.serve.handlers import about
from slmops.serve.handlers.chat import chat
from slmops.serve.handlers.classify import classify
from slmops.serve.handlers.completions import complete
from slmops.serve.handlers.embeddings import embed
from slmops.serve.intake import CLIENT, Intake, Limits
from slmops.serve.openapi import Address, document
from slmops.serve.served import Served

_OPEN = frozenset({"/health", "/ready", "/openapi.json"}) | pages.PATHS
"""What is answered without a key."""


class Server:
    """OpenAI's addresses over one served bundle.

    Attributes:
        intake: what handlers are given requests by.
        keys: that are let in.
        accounts: of the requests.
        draining: nothing new is to be sent here.
    """

    def __init__(self, served: Served, keys: Keys, limits: Limits, accounts: Accounts | None = None) -> None:
        self.intake, self.keys = Intake(served, limits), keys
        self.accounts = accounts or Accounts()
        self.draining = False

    @property
    def served(self) -> Served:
        """The model that is asked now."""
        return self.intake.served

    def application(self) -> web.Application:
        """What an HTTP server runs."""
        around = [self.accounts.keeping, telling(self.refused), self._known]
        app = web.Application(client_max_size=self.intake.limits.body_bytes, middlewares=around)
        self.accounts.install(app)
        app.add_routes([*pages.routes(), *(address.route() for address in self.addresses())])
        return app

    def refused(self, why: str) -> None:
        """Count something that was not taken; `why` is one of a few words of ours."""
        self.served.metrics.refused(why)

    def addresses(self) -> list[Address]:
        """All but those of the page."""
        get, post, intake = partial(Address, "get"), partial(Address, "post"), self.intake
        return [
            get("/health", about.health, "The process lives."),
            get("/ready", self.ready, "Requests are taken."),
            get("/card", partial(about.card, intake), "What the page tells of the model."),
            get("/metrics", partial(about.metrics, intake), "Figures for Prometheus.", gives="text/plain"),
            get("/openapi.json", self.described, "This document."),
            get("/v1/models", partial(about.models, intake), "What can be asked."),
            get("/v1/models/{model}", partial(about.model, intake), "One of them."),
            post("/v1/chat/completions", partial(chat, intake), "The next message of a conversation.", ChatRequest),
            post("/v1/completions", partial(complete, intake), "What follows on a text.", CompletionRequest),
            post("/v1/embeddings", partial(embed, intake), "Texts as vectors.", EmbeddingsRequest),
            post("/v1/classify", partial(classify, intake), "How likely each label is.", ClassifyRequest),
        ]

    async def described(self, _request: web.Request) -> web.Response:
        """What can be asked here, for programs."""
        return web.json_response(document(self.addresses(), open_to_all=_OPEN))

    async def ready(self, _request: web.Request) -> web.Response:
        """Requests are taken."""
        return web.json_response({"ready": not self.draining}, status=503 if self.draining else 200)

    @web.middleware
    async def _known(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Nobody without a key, where there are keys."""
        client = self.keys.client(request.headers.get("Authorization"))
        if client is None and request.path not in _OPEN:
            told = problem("no such API key", "invalid_request_error", code="invalid_api_key")
            raise Failed(401, told)
        request[CLIENT] = client or ""
        return await handler(request)
