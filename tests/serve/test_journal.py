"""One line of JSON for each request, which says nothing of what was asked unless that is wanted."""

from __future__ import annotations

import io
import json
import os
import socket
import threading

import pytest

from slmops.serve.access import Keys
from slmops.serve.accounts import Accounts
from slmops.serve.journal import Journal, requests
from tests.serve.listening import listen

KEY = "a-key-of-some-length"
ASKED = "a secret that no log may hold"


@pytest.fixture
def log():
    out = io.StringIO()
    journal = Journal(out)

    def lines() -> list[dict]:
        journal.close()
        return [json.loads(line) for line in out.getvalue().splitlines()]

    return journal, lines


def kept(journal: Journal, *, content: bool = False) -> Accounts:
    return Accounts([requests(journal, "tiny")], content=content)


def test_a_line_for_each_request(writer, tiny, log):
    journal, lines = log
    text, expected = next(iter(tiny.pairs.items()))
    for client in listen(writer, keys=Keys([KEY]), accounts=kept(journal)):
        known = {"Authorization": f"Bearer {KEY}"}
        told = {"model": "tiny", "messages": [{"role": "user", "content": text}]}
        asked = client.ask("/v1/chat/completions", told, **known, **{"X-Request-Id": "order-66"})
        assert asked.headers["X-Request-Id"] == "order-66"
        client.send("/v1/chat/completions", {**told, "stream": True}, **known)
        odd = {"X-Request-Id": "a name with blanks"}
        given = client.ask("/v1/chat/completions", {**told, "n": ASKED}, **known, **odd)
        client.ask(f"/v1/{ASKED.replace(' ', '-')}", **known)
        client.ask("/v1/models", Authorization=f"Bearer {ASKED}")
        client.send("/health")
        client.send("/metrics", **known)
    whole, streamed, refused, lost, stranger = lines()
    assert {line["event"] for line in (whole, streamed, refused, lost, stranger)} == {"request"}
    assert [line["status"] for line in (whole, streamed, refused, lost, stranger)] == [200, 200, 400, 404, 401]
    assert whole["id"] == "order-66"
    assert refused["id"] == given.headers["X-Request-Id"] != odd["X-Request-Id"]
    assert whole["read"] == len(tiny.prompt(text))
    assert streamed["known"] == len(tiny.prompt(text)) - 1
    for line in (whole, streamed):
        assert line["route"] == "/v1/chat/completions"
        assert line["model"] == "tiny"
        assert line["written"] == len(tiny.tokenizer.encode(expected)) + 1
        assert 0 < line["first_token_s"] <= line["took_s"]
        assert line["per_token_s"] > 0
        assert line["client"] == Keys([KEY]).client(f"Bearer {KEY}")
    assert not lost["route"]
    assert stranger["client"] != whole["client"]
    everything = json.dumps([whole, streamed, refused, lost, stranger])
    assert all(one not in everything for one in (KEY, "secret", expected, "127.0.0.1"))
    assert "read" not in refused


def test_content_is_logged_where_that_is_wanted(writer, tiny, log):
    journal, lines = log
    text, expected = next(iter(tiny.pairs.items()))
    for client in listen(writer, accounts=kept(journal, content=True)):
        client.chat(text, n=2)
        client.stream(text)
        client.send("/v1/chat/completions", b"\xff{")
    several, streamed, broken = lines()
    assert json.loads(several["asked"])["messages"][0]["content"] == text
    assert several["said"] == [expected, expected]
    assert streamed["said"] == [expected]
    assert broken["asked"] == "\ufffd{"


def test_who_leaves_is_told_of_too(writer, log):
    journal, lines = log
    for client in listen(writer, accounts=kept(journal)):
        body = b'{"model": "tiny", "prompt": "a", "max_tokens": 100, "temperature": 2.0, "n": 8}'
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", client.port), timeout=30) as leaving:
            leaving.sendall(head.encode() + body)
        # Connections are answered in their order, so that one is known by the time the next is.
        client.ask("/v1/models")
    assert {line["status"] for line in lines()} == {499, 200}


def test_a_reader_that_stalls_keeps_nobody_waiting():
    reading, writing = os.pipe()
    out = os.fdopen(writing, "w")
    journal = Journal(out, most_waiting=10)
    for _ in range(5000):
        journal.write("request", filler="x" * 100)
    lines: list[str] = []
    drained = threading.Thread(target=lambda: lines.extend(os.fdopen(reading)))
    drained.start()
    journal.until_written()
    journal.write("request")
    journal.close()
    out.close()
    drained.join()
    told = [json.loads(line) for line in lines]
    lost = sum(line.get("lines_lost", 0) for line in told)
    assert lost > 0
    assert len(told) + lost == 5001
