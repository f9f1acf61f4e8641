"""A judge behind a real HTTP server on loopback: honest, in love with what it reads first, or talking nonsense."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Judge = Callable[[dict[str, Any]], str]
"""What is said of the JSON in a request's last message."""


def honest(given: dict[str, Any]) -> str:
    """Prefers the answer that is the reference; grades it 5, and 2 otherwise."""
    if "criteria" in given:
        grade = 5 if given["answer"] == given["reference"] else 2
        return json.dumps(dict.fromkeys(given["criteria"], grade))
    right = [given[answer] == given["reference"] for answer in ("answer_A", "answer_B")]
    choice = "tie" if right[0] == right[1] else "A" if right[0] else "B"
    return "```json\n" + json.dumps({"better": choice}) + "\n```"


def first_always(given: dict[str, Any]) -> str:
    return json.dumps({"better": "A"})


def nonsense(given: dict[str, Any]) -> str:
    return "As a large language model I like both A and B very much!"


class JudgeServer:
    """Counts requests, and refuses them as told.

    Attributes:
        requests: bodies of all requests, in order of arrival.
        keys: values of the header Authorization.
        most: requests that are answered; later ones get status `then`.
    """

    def __init__(self, judge: Judge, *, most: int = 1_000_000, then: int = 401, raw: bytes | None = None) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.most, self.then, self.judge, self.raw = most, then, judge, raw
        self.under_way = self.most_under_way = 0
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server.requests.append(body)
                    server.keys.add(self.headers["Authorization"])
                    refused = len(server.requests) > server.most
                    server.under_way += 1
                    server.most_under_way = max(server.most_under_way, server.under_way)
                status, content = (server.then, b"{}") if refused else (200, server.answer(body))
                with lock:
                    server.under_way -= 1
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def answer(self, body: dict[str, Any]) -> bytes:
        if self.raw is not None:
            return self.raw
        text = self.judge(json.loads(body["messages"][-1]["content"]))
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        whole = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice]}
        return json.dumps(whole).encode()

    def __enter__(self) -> JudgeServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
