"""What a server says of itself and of its model."""

from __future__ import annotations

from aiohttp import web

from slmops.bundle.manifest import CARD
from slmops.serve.answers import Json
from slmops.serve.intake import Intake
from slmops.serve.metrics import CONTENT_TYPE
from slmops.serve.served import Served


async def health(_request: web.Request) -> web.Response:
    """The process lives."""
    return web.json_response({"status": "ok"})


async def card(intake: Intake, _request: web.Request) -> web.Response:
    """What the page tells of the model."""
    bundle, manifest = intake.served.bundle, intake.served.bundle.manifest
    path = bundle.folder / CARD
    text = path.read_text(encoding="utf-8") if CARD in manifest.files else ""
    named = {"name": intake.served.name, "version": manifest.version, "engine": manifest.engine}
    told = {"task": manifest.task["kind"], "labels": list(intake.served.labels), "card": text}
    told |= {"conversation": intake.served.marker is None}
    return web.json_response({**named, **told})


async def metrics(intake: Intake, _request: web.Request) -> web.Response:
    """For Prometheus."""
    return web.Response(body=intake.served.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


async def models(intake: Intake, _request: web.Request) -> web.Response:
    """What can be asked."""
    return web.json_response({"object": "list", "data": [_model(intake, one) for one in intake.models()]})


async def model(intake: Intake, request: web.Request) -> web.Response:
    """One of them."""
    return web.json_response(_model(intake, intake.model(request.match_info["model"])))


def _model(intake: Intake, served: Served) -> Json:
    told = {"id": served.name, "object": "model", "created": intake.begun, "owned_by": "slmops"}
    return told if served.adapter is None else {**told, "parent": intake.served.name}
