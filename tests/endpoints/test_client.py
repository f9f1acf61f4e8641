"""One request: what goes out, and what is made of what comes back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from slmops.endpoints.client import Client, Endpoint, Failure, Reply
from slmops.errors import SlmopsError
from slmops.privacy.audit import EGRESS, Gate
from tests.endpoints.teacher_server import Act, TeacherServer

MESSAGES = [{"role": "user", "content": "hello"}]


def ask(url: str, gate: Gate | None = None, **wanted) -> Reply:
    async def main() -> Reply:
        async with Client(Endpoint(url, "toy", "sk-secret"), timeout_s=5, connections=1, gate=gate) as client:
            return await client.complete(MESSAGES, idempotency_key="k", **wanted)

    return asyncio.run(main())


def failure(act: Act) -> Failure:
    with TeacherServer(lambda _n, _t: act) as server, pytest.raises(Failure) as error:
        ask(server.url)
    return error.value


def test_a_request_and_its_reply():
    with TeacherServer() as server:
        reply = ask(server.url + "/", max_tokens=7, temperature=0.5)
    assert server.requests == [{"model": "toy", "messages": MESSAGES, "max_tokens": 7, "temperature": 0.5}]
    assert server.headers[0]["Idempotency-Key"] == "k"
    assert (reply.text, reply.finish, reply.prompt_tokens, reply.completion_tokens) == ("HELLO", "stop", 40, 3)
    assert reply.latency_s > 0


@pytest.mark.parametrize(
    ("act", "retryable", "of_the_request", "charged"),
    [
        (Act("status", status=400), False, True, False),
        (Act("status", status=401), False, False, False),
        (Act("status", status=404), False, False, False),
        (Act("status", status=429), True, False, False),
        (Act("status", status=500), True, False, False),
        (Act("status", status=502), True, False, True),
        (Act("status", status=504), True, False, True),
        (Act("reset"), True, False, True),
        (Act("half"), True, False, True),
        (Act("garbage"), True, False, True),
    ],
)
def test_whose_fault_it_is_and_whether_it_may_be_charged(act, retryable, of_the_request, charged):
    found = failure(act)
    assert (found.retryable, found.of_the_request, found.charged) == (retryable, of_the_request, charged)
    assert "sk-secret" not in str(found)


@pytest.mark.parametrize(("header", "seconds"), [("7", 7), ("0", 0), ("soon", None)])
def test_retry_after_in_seconds(header, seconds):
    assert failure(Act("status", status=429, headers=(("Retry-After", header),))).wait_s == seconds


def test_retry_after_as_a_date():
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 60 < failure(Act("status", status=429, headers=(("Retry-After", then),))).wait_s <= 90


def test_a_redirect_is_not_followed_with_the_key():
    with TeacherServer() as elsewhere:
        found = failure(Act("status", status=307, headers=(("Location", f"{elsewhere.url}/chat/completions"),)))
    assert (found.status, found.retryable) == (307, False)
    assert elsewhere.requests == []


def test_the_environments_proxy_is_taken(tmp_path, monkeypatch):
    gate = Gate(tmp_path / EGRESS, "test", "nowhere.invalid", "toy")
    with TeacherServer() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert ask("http://nowhere.invalid/v1", gate).text == "HELLO"
        monkeypatch.setenv("no_proxy", "nowhere.invalid")
        with pytest.raises(Failure, match="does not answer"):
            ask("http://nowhere.invalid/v1", gate)


def test_what_stays_on_this_machine_goes_through_no_proxy(monkeypatch):
    with TeacherServer() as proxy, TeacherServer() as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        ask(server.url)
    assert (proxy.asked.total(), server.asked.total()) == (0, 1)


def test_another_machine_is_not_asked_without_a_gate():
    with pytest.raises(TypeError, match="without a gate"):
        ask("http://nowhere.invalid/v1")


def test_a_request_that_cannot_be_written_down_is_not_sent(tmp_path):
    with TeacherServer() as server, pytest.raises(SlmopsError, match="nothing was sent"):
        ask(server.url, Gate(tmp_path, "test", "host", "toy"))
    assert server.asked.total() == 0
