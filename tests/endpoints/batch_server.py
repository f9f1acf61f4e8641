"""The teacher server with `/files` and `/batches`, at half the price, and with every way in which batches go wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.endpoints.teacher_server import Act, TeacherServer, echo

EXPIRED = Act("reset", text="batch_expired")
"""Of a request: it is in the file of errors, without a response."""

NO_LINE = Act("lost")
"""Of a request: it was charged, and is in no file."""


@dataclass
class Made:
    """A batch at the server; `looks` are those for which it is still under way."""

    file: str
    looks: int
    status: str
    results: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)


class BatchServer(TeacherServer):
    """Attributes:
    uploads: files of requests, in order of arrival.
    batches: in the order in which they were handed in.
    looks: for which a batch is under way; each is worked at when it is handed in, and charged then.
    ends: status with which the n-th batch ends, from 1.
    hands_in: what is done with the n-th request to make a batch.
    serve: content of the n-th download of a file of results → what is sent, and whether all of it is.
    """

    def __init__(
        self,
        behave: Callable[[int, str], Act] = echo,
        *,
        looks: int = 1,
        ends: Callable[[int], str] = lambda _n: "completed",
        hands_in: Callable[[int], Act] = lambda _n: Act(),
        serve: Callable[[int, bytes], tuple[bytes, bool]] = lambda _n, content: (content, True),
    ) -> None:
        super().__init__(behave)
        self.looks, self.ends, self.hands_in, self.serve = looks, ends, hands_in, serve
        self.uploads: list[bytes] = []
        self.batches: list[Made] = []
        self.tries = self.downloads = 0

    def lines(self, upload: int) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.uploads[upload].splitlines()]

    def _add_routes(self, app: web.Application) -> None:
        super()._add_routes(app)
        app.router.add_post("/v1/files", self._upload)
        app.router.add_get("/v1/files/{file}/content", self._download)
        app.router.add_post("/v1/batches", self._make)
        app.router.add_get("/v1/batches", self._list)
        app.router.add_get("/v1/batches/{batch}", self._look)

    async def _upload(self, request: web.Request) -> web.Response:
        self.headers.append(dict(request.headers))
        form = await request.post()
        assert form["purpose"] == "batch"
        self.uploads.append(form["file"].file.read())
        return web.json_response({"id": f"file-{len(self.uploads) - 1}", "object": "file"})

    async def _make(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        assert wanted["endpoint"] == "/v1/chat/completions"
        self.tries += 1
        act = self.hands_in(self.tries)
        if act.how == "status":
            return web.json_response({"error": {"message": "as told"}}, status=act.status)
        self.batches.append(made := Made(wanted["input_file_id"], self.looks, self.ends(len(self.batches) + 1)))
        for line in self.lines(int(made.file.removeprefix("file-"))):
            self._work(made, line)
        if act.how == "hang":
            await asyncio.sleep(5)
        if act.how == "lost":
            request.transport.abort()
        return web.json_response(self._told(len(self.batches) - 1))

    def _work(self, made: Made, line: dict[str, Any]) -> None:
        text = line["body"]["messages"][-1]["content"]
        self.asked[text] += 1
        act = self.behave(self.asked.total(), text)
        result: dict[str, Any] = {"id": "r", "custom_id": line["custom_id"], "response": None, "error": None}
        if act == EXPIRED:
            made.errors.append(result | {"error": {"code": act.text, "message": "too late"}})
        elif act.how == "status":
            body = {"error": {"message": "as told"}}
            made.errors.append(result | {"response": {"status_code": act.status, "body": body}})
        else:
            body = {"odd": 1} if act.how == "garbage" else json.loads(self._charge(act, text))
            if act != NO_LINE:
                made.results.insert(0, result | {"response": {"status_code": 200, "body": body}})

    def _charge(self, act: Act, text: str) -> bytes:
        before = self.charged
        content = super()._charge(act, text)
        self.charged = before + (self.charged - before) // 2
        return content

    def _told(self, number: int) -> dict[str, Any]:
        made = self.batches[number]
        status = made.status if made.looks <= 0 else "in_progress"
        requests = len(self.lines(int(made.file.removeprefix("file-"))))
        counts = {"total": requests, "completed": requests - len(made.errors), "failed": len(made.errors)}
        told = {"id": f"batch-{number}", "object": "batch", "status": status, "input_file_id": made.file}
        if status == "failed":
            return told | {"errors": {"data": [{"code": "bad", "message": "line 1 is no request"}]}}
        ended = status != "in_progress"
        files = {"output_file_id": f"results-{number}", "error_file_id": f"errors-{number}" if made.errors else None}
        return told | {"request_counts": counts} | (files if ended else {})

    async def _look(self, request: web.Request) -> web.Response:
        number = int(request.match_info["batch"].removeprefix("batch-"))
        self.batches[number].looks -= 1
        return web.json_response(self._told(number))

    async def _list(self, request: web.Request) -> web.Response:
        """One to a page, the newest first."""
        names = [f"batch-{number}" for number in reversed(range(len(self.batches)))]
        after = request.query.get("after")
        left = names[names.index(after) + 1 :] if after else names
        page = [self._told(int(name.removeprefix("batch-"))) for name in left[:1]]
        return web.json_response({"object": "list", "data": page, "has_more": len(left) > 1})

    async def _download(self, request: web.Request) -> web.StreamResponse:
        kind, _, number = request.match_info["file"].partition("-")
        made = self.batches[int(number)]
        self.downloads += kind == "results"
        content = b"".join(json.dumps(line).encode() + b"\n" for line in getattr(made, kind))
        sent, whole = self.serve(self.downloads, content) if kind == "results" else (content, True)
        response = web.StreamResponse(headers={"Content-Length": str(len(sent) if whole else len(content))})
        await response.prepare(request)
        await response.write(sent)
        if not whole:
            request.transport.abort()
        return response
