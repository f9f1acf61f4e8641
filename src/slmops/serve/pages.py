"""The page of a server: a box to ask it, its model card and its figures. Nothing of it comes from elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

from aiohttp import web

_FILES = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js"}
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}

# What the model writes is put into the page as text; should that ever fail, it still could load and send nothing.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}

PATHS = frozenset(_FILES)


def routes() -> list[web.RouteDef]:
    """The files of the page."""
    return [web.get(path, _sends(name)) for path, name in _FILES.items()]


def _sends(name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    content = files("slmops.serve").joinpath("page", name).read_text(encoding="utf-8")

    async def send(_request: web.Request) -> web.Response:
        return web.Response(text=content, content_type=_TYPES[name.rsplit(".", 1)[1]], headers=_HEADERS)

    return send
