"""The server's description of itself, made of the models that requests are read by (OpenAPI 3.1.0)."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from slmops.serve.answers import Json
from slmops.serve.api import ErrorReply, Generating

_SCHEMAS = "#/components/schemas/"
_ERRORS = {
    400: "The request cannot be answered; the message says why.",
    401: "There is no such API key.",
    404: "There is no such model, or the model does not do this.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    429: "The queue is full; `Retry-After` says when to come again.",
    500: "The server failed.",
    503: "The server is closing.",
    504: "The answer was not there in time.",
}


@dataclass(frozen=True)
class Address:
    """What is answered where.

    Attributes:
        method: of HTTP, in lower case.
        says: a sentence for people.
        body: what a request says; None for nothing.
        gives: the type of the answer.
    """

    method: str
    path: str
    handler: Handler
    says: str
    body: type[BaseModel] | None = None
    gives: str = "application/json"

    def route(self) -> web.RouteDef:
        """For an application."""
        return web.route(self.method, self.path, self.handler)


def document(addresses: Sequence[Address], *, open_to_all: Collection[str]) -> Json:
    """The description of a server that answers at `addresses`; those in `open_to_all` need no key."""
    kinds: list[type[BaseModel]] = [ErrorReply, *(address.body for address in addresses if address.body)]
    models: list[tuple[type[BaseModel], Any]] = [(kind, "validation") for kind in kinds]
    _, schemas = models_json_schema(models, ref_template=_SCHEMAS + "{model}")
    paths: dict[str, Json] = {}
    for address in addresses:
        paths.setdefault(address.path, {})[address.method] = _operation(address, address.path in open_to_all)
    keys = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "slmops serve", "version": version("slmops")},
        "paths": paths,
        "components": {"schemas": schemas["$defs"], "securitySchemes": keys},
    }


def _operation(address: Address, open_to_all: bool) -> Json:
    content: dict[str, Json] = {address.gives: {}}
    if address.body and issubclass(address.body, Generating):
        content["text/event-stream"] = {}
    problem = {"application/json": {"schema": {"$ref": f"{_SCHEMAS}{ErrorReply.__name__}"}}}
    told: Json = {
        "summary": address.says,
        "security": [] if open_to_all else [{"key": []}, {}],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"{(\w+)}", address.path)
        ],
        "responses": {
            "200": {"description": address.says, "content": content},
            **{str(status): {"description": said, "content": problem} for status, said in _ERRORS.items()},
        },
    }
    if address.body:
        schema = {"$ref": f"{_SCHEMAS}{address.body.__name__}"}
        told["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return told
