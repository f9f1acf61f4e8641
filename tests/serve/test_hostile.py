"""Clients that mean no good, or know no better: each is told so or given up, and the others are answered."""

from __future__ import annotations

import contextlib
import gzip
import json
import resource
import socket
import threading
from collections.abc import Iterator

import pytest

from slmops.serve.intake import Limits
from tests.serve.listening import Client, listen
from tests.serve.test_run import serving

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Where is order 4711?"}]}


@pytest.fixture(scope="module")
def client(writer) -> Iterator[Client]:
    yield from listen(writer, limits=Limits(idle_s=1, body_s=1, stalled_s=1))


def connect(client: Client) -> socket.socket:
    return socket.create_connection(("127.0.0.1", client.port), timeout=60)


def answer(sent: bytes, client: Client) -> bytes:
    """All that comes back for some bytes, until the server closes."""
    with connect(client) as line:
        with contextlib.suppress(ConnectionError):
            line.sendall(sent)
        return all_of(line)


def all_of(line: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionError):
        while piece := line.recv(65536):
            found += piece
    return found


def request(body: bytes, *headers: str, length: int | None = None) -> bytes:
    told = [f"Content-Length: {len(body) if length is None else length}", "Host: x", *headers]
    return "\r\n".join(["POST /v1/chat/completions HTTP/1.1", *told, "", ""]).encode() + body


@pytest.fixture(autouse=True)
def _goes_on(request) -> Iterator[None]:
    """Whatever a test does, the next client is answered."""
    yield
    if "client" in request.fixturenames:
        assert request.getfixturevalue("client").chat("Where is order 4711?").status == 200


def test_a_head_that_never_ends_is_given_up(client):
    done = threading.Event()
    with connect(client) as slow, connect(client) as idle:
        slow.sendall(b"POST /v1/chat/completions HTTP/1.1\r\n")

        def trickle() -> None:
            with contextlib.suppress(OSError):
                while not done.wait(0.1):
                    slow.sendall(b"X-A: b\r\n")

        threading.Thread(target=trickle, daemon=True).start()
        assert all_of(slow) == b""
        assert all_of(idle) == b""
        done.set()


def test_a_body_that_trickles_is_given_up(client):
    with connect(client) as slow:
        slow.sendall(request(b"{", length=1000))
        done = threading.Event()

        def trickle() -> None:
            with contextlib.suppress(OSError):
                while not done.wait(0.1):
                    slow.sendall(b" ")

        threading.Thread(target=trickle, daemon=True).start()
        assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")
        done.set()


@pytest.mark.parametrize("stream", [True, False])
def test_who_takes_nothing_of_an_answer_is_given_up(client, stream):
    body = {"model": "tiny", "prompt": ["a"] * 16, "n": 16, "max_tokens": 64, "temperature": 2.0, "logprobs": 20}
    content = json.dumps({**body, "stream": stream}).encode()
    until_open(client, 0)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.connect(("127.0.0.1", client.port))
        deaf.sendall(request(content).replace(b"chat/completions", b"completions"))
        until_open(client, 1)
        # Its own end stays open.
        until_open(client, 0)


def until_open(client: Client, count: int) -> None:
    waited = threading.Event()
    for _ in range(1200):
        if client.connections.open == count:
            return
        waited.wait(0.05)
    raise AssertionError(f"{client.connections.open} connections are open, and not {count}")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"b" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nA\x00: b\r\n\r\n",
        # Two lengths, or two ways to tell one, are how a request is hidden behind another.
        request(b"{}", "Content-Length: 3"),
        request(b"{}", "Transfer-Encoding: chunked"),
        request(b"{}").replace(b"Content-Length: 2", b"Content-Length: +2"),
        request(b"{}").replace(b"Content-Length: 2", b"Content-Length: -2"),
        request(b"zz\r\n{}\r\n0\r\n\r\n").replace(b"Content-Length: 14", b"Transfer-Encoding: chunked"),
        request(b"{}").replace(b"Content-Length: 2", b"Transfer-Encoding: chunked, identity"),
    ],
)
def test_what_is_no_http_is_told_in_openais_form(client, sent):
    head, _, body = answer(sent, client).partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")), head
    assert head.count(b"HTTP/1.") == 1
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


def test_requests_behind_each_other_are_answered_in_their_order(client):
    one, two = json.dumps({**CHAT, "max_tokens": 2}).encode(), json.dumps({**CHAT, "max_tokens": 3}).encode()
    said = answer(request(one) + request(two) + request(b"{", "Connection: close"), client)
    assert [part[:3] for part in said.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"400"]
    assert said.index(b'"completion_tokens": 2') < said.index(b'"completion_tokens": 3')


def test_a_flood_of_requests_on_one_connection_takes_no_memory(client):
    with connect(client) as line:
        line.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError, ConnectionError):
            # Nobody reads the answers, so the server stops reading requests.
            for _ in range(100_000):
                line.sendall(request(b"{") * 10)
                sent += 10
        assert sent < 1_000_000


def test_a_body_that_unpacks_to_more_than_is_allowed(client):
    bomb = gzip.compress(b" " * 200_000_000, 9)
    said = answer(request(bomb, "Content-Encoding: gzip", "Connection: close"), client)
    assert said.startswith(b"HTTP/1.1 413 ")


def nested(depth: int) -> dict:
    schema: dict = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"], "additionalProperties": False}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        nested(400),
        {"anyOf": [{"type": "string", "pattern": f"^(a|aa)+{i}$"} for i in range(200)]},
        {"type": "string", "pattern": "(" * 2000 + ")" * 2000},
        {"type": "string", "pattern": "^(a?){5000}a{5000}$"},
        {"type": "array", "items": {"type": "integer"}, "minItems": 10**9},
        {"type": "string", "minLength": 10**12},
        {"$ref": "#"},
        {"$ref": "https://127.0.0.1/schema.json"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"enum": ["x" * 60_000]},
        {"allOf": [{"properties": {f"k{i}": {"type": "string"}}} for i in range(500)]},
    ],
)
def test_a_schema_that_is_made_to_be_dear(client, schema):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    status, told, _ = client.chat("x", response_format=form, max_tokens=4)
    # One that can be followed is; one that becomes too dear on the way ends this answer alone.
    assert status in (200, 400) or told["error"]["code"] == "failed"


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "tiny", "messages": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "tiny", "messages": [{"role": "user", "content": "\xc3\x28"}]}',
        b'{"model": "tiny", "messages": [], "messages": []}',
        b'{"model": "tiny", "seed": 1e999}',
        b'{"model": "tiny", "seed": ' + b"9" * 100_000 + b"}",
        b'{"model": "tiny", "max_tokens": 1e300}',
        json.dumps({**CHAT, "n": 10**12}).encode(),
        json.dumps({**CHAT, "seed": 2**200}).encode(),
        json.dumps({**CHAT, "stop": ["x" * 100_000]}).encode(),
        json.dumps({**CHAT, "messages": CHAT["messages"] * 5000}).encode(),
        json.dumps({**CHAT, "messages": [{"role": "user", "content": "long " * 100_000}]}).encode(),
        b"",
        b"\x00" * 1000,
    ],
)
def test_a_body_that_is_made_to_break_something(client, body):
    status, told, _ = client.ask("/v1/chat/completions", body)
    assert status == 400
    assert told["error"]["type"] == "invalid_request_error"


def test_more_tokens_than_there_is_room_for_are_not_written(client):
    _, body, _ = client.chat("Where is order 4711?", max_tokens=2**62)
    assert body["choices"][0]["finish_reason"] in ("stop", "length")


def test_a_connection_too_many_is_told_so(writer):
    for client in listen(writer, limits=Limits(connections=3)):
        lines = [connect(client) for _ in range(3)]
        for line in lines:
            line.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert line.recv(1000).startswith(b"HTTP/1.1 200 ")
        head, _, body = answer(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", client).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: " in head
        assert json.loads(body)["error"]["code"] == "overloaded"
        with connect(client) as silent:
            assert b" 503 " in all_of(silent)
        lines[0].close()
        until_open(client, 2)
        figures = client.send("/metrics").body.decode()
        assert 'slmops_refused_total{why="connections"} 2.0' in figures
        for line in lines[1:]:
            line.close()


def test_thousands_that_say_nothing_keep_nobody_waiting(writer):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    many = min(10_000, hard - 600)
    idle: list[socket.socket] = []
    try:
        with serving(writer, "--max-connections", str(many)) as (_, address):
            port = int(address.split(":")[2].partition("/")[0])
            idle.extend(socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(many - 1))
            with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
                line.sendall(request(json.dumps(CHAT).encode(), "Connection: close"))
                assert all_of(line).startswith(b"HTTP/1.1 200 ")
    finally:
        for one in idle:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
