"""An endpoint over real HTTP: what is asked, what is kept, and what happens when it fails."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from slmops.errors import BadInput, SlmopsError
from slmops.evaluate.endpoint import Manner, ask
from slmops.evaluate.subjects import Endpoint

sys.path.insert(0, str(Path(__file__).parent))

from endpoint_server import Server, reply, send

MANNER = Manner(concurrency=3, alone=2, retries=2, timeout_s=5)
REQUESTS = {f"k{i}": [{"role": "user", "content": f"text {i}"}] for i in range(12)}


def run(server: Server, *, key: str | None = None, manner: Manner = MANNER) -> dict:
    kept: dict = {}
    address, _, model = server.address.partition("#")
    ask(Endpoint("toy", address, model, key), REQUESTS, 8, manner, kept.__setitem__)
    return kept


def test_every_request_is_answered_once_some_of_them_alone():
    with Server(lambda _n, text, _h: text.upper()).running() as server:
        kept = run(server, key="secret")
    assert {key: record["text"] for key, record in kept.items()} == {f"k{i}": f"TEXT {i}" for i in range(12)}
    assert set(server.asked.values()) == {1}
    assert [key for key, record in kept.items() if record["alone"]] == ["k0", "k1"]
    assert all(record["latency_ms"] > 0 and record["tokens"] == 2 for record in kept.values())
    assert server.keys == {"Bearer secret"}


def test_no_more_requests_at_once_than_allowed():
    def slow(_number, text, _handler):
        time.sleep(0.05)
        return text

    with Server(slow).running() as server:
        run(server)
    assert server.most_at_once == 3


def test_a_busy_server_is_asked_again_when_it_says(monkeypatch):
    times: list[float] = []

    def busy_once(number, text, handler):
        times.append(time.monotonic())
        if number == 1:
            return send(handler, 429, b"{}", Retry_After="1")
        return text

    with Server(busy_once).running() as server:
        assert len(run(server)) == 12
    assert times[1] - times[0] >= 1
    assert server.asked["text 0"] == 2


def test_a_server_that_stays_ill_ends_it_and_what_came_is_kept():
    def dies(number, text, handler):
        return text if number <= 5 else send(handler, 503, b"{}")

    kept: dict = {}
    with Server(dies).running() as server:
        address, _, model = server.address.partition("#")
        with pytest.raises(SlmopsError, match="answers 503") as error:
            ask(Endpoint("toy", address, model), REQUESTS, 8, Manner(1, 0, 1, 5), kept.__setitem__)
    assert sorted(kept) == [f"k{i}" for i in range(5)]
    assert server.asked.total() == 5 + 2, "one request was tried twice, and no other was sent"
    assert not isinstance(error.value, BadInput)


def closes(_number, _text, handler):
    handler.close_connection = True
    handler.connection.close()


def half(_number, _text, handler):
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices"')
    handler.wfile.flush()
    handler.close_connection = True
    handler.connection.shutdown(2)


def says(body: bytes):
    return lambda _n, _t, handler: send(handler, 200, body)


@pytest.mark.parametrize(
    ("behave", "message"),
    [
        (closes, "does not answer"),
        (half, "does not answer"),
        (says(b"<html>hello</html>"), "does not speak the OpenAI protocol"),
        (says(b"{}"), "no choices"),
        (says(b'{"choices": []}'), "no choices"),
        (says(b'{"choices": [{"message": {"content": 5}}]}'), "content is 5"),
    ],
)
def test_nonsense_and_broken_connections_are_named(behave, message):
    with Server(behave).running() as server, pytest.raises(SlmopsError, match=message) as error:
        run(server, manner=Manner(1, 0, 0, 5))
    assert error.value.hint


def test_a_wrong_key_is_the_users_and_is_not_shown():
    def refuses(_number, _text, handler):
        return send(handler, 401, b'{"error": {"message": "bad key sk-very-secret"}}')

    with Server(refuses).running() as server, pytest.raises(BadInput, match="answers 401") as error:
        run(server, key="sk-very-secret")
    assert "very-secret" not in str(error.value)
    assert server.asked.total() == 1


def test_nobody_there():
    with pytest.raises(SlmopsError, match="does not answer"):
        ask(Endpoint("x", "http://127.0.0.1:9/v1", "m"), REQUESTS, 8, Manner(1, 0, 0, 1), {}.__setitem__)


def test_a_server_that_hangs_is_given_up():
    with (
        Server(lambda _n, text, _h: time.sleep(2) or text).running() as server,
        pytest.raises(SlmopsError, match="does not answer"),
    ):
        run(server, manner=Manner(1, 0, 0, 0.2))


def test_no_content_is_an_empty_answer():
    with Server(lambda _n, _t, handler: send(handler, 200, reply(None))).running() as server:
        assert {record["text"] for record in run(server).values()} == {""}
