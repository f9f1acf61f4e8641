"""A model that marks, over real connections: it says what `slmops predict` says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from slmops.bundle import open_bundle
from slmops.serve.served import Served
from tests.serve.listening import Client, listen
from tests.tiny_task import SCHEMA, TASK


@pytest.fixture(scope="module")
def client(marker) -> Iterator[Client]:
    yield from listen(marker)


def test_the_answer_is_that_of_predict_alone_and_together(client, marker, tiny):
    texts = [*tiny.pairs, *(f"{text} {text}" for text in tiny.pairs)]
    expected = [one.answer for one in open_bundle(marker, threads=1).predict_many(texts)]
    with ThreadPoolExecutor(len(texts)) as pool:
        replies = list(pool.map(client.chat, texts))
    for reply, answer in zip(replies, expected, strict=True):
        (choice,) = reply.body["choices"]
        assert json.loads(choice["message"]["content"]) == answer
        assert choice["finish_reason"] == "stop"
        assert TASK.check(json.loads(choice["message"]["content"])) is None


def test_those_that_wait_are_run_together(marker, tiny, monkeypatch):
    served = Served(marker, slots=4, threads=1, queue=64)
    came, all_came, runs = [], threading.Event(), []
    submit, states = served.scheduler.submit, served.marker.body.states

    def submitted(*args, **kwargs):
        came.append(submit(*args, **kwargs))
        if len(came) == 12:
            all_came.set()
        return came[-1]

    def run(ids):
        # The first one is run when all the others wait, however fast it would have been.
        assert all_came.wait(60)
        runs.append(len(ids))
        return states(ids)

    monkeypatch.setattr(served.scheduler, "submit", submitted)
    monkeypatch.setattr(served.marker.body, "states", run)
    for client in listen(marker, served=served):
        with ThreadPoolExecutor(12) as pool:
            replies = list(pool.map(client.chat, [*tiny.pairs] * 3))
    assert {reply.status for reply in replies} == {200}
    assert sum(runs) == 12
    assert max(runs) > 1


def test_a_stream_has_one_piece(client, tiny):
    text = next(iter(tiny.pairs))
    first, piece, done = client.stream(text)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert piece["choices"][0]["delta"]["content"] == client.chat(text).body["choices"][0]["message"]["content"]
    assert piece["choices"][0]["finish_reason"] == "stop"
    assert done == "[DONE]"


def test_a_limit_cuts_the_answer(client, tiny):
    text = next(iter(tiny.pairs))
    whole = client.chat(text).body["choices"][0]["message"]["content"]
    body = client.chat(text, max_tokens=3).body
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 3
    assert whole.startswith(body["choices"][0]["message"]["content"])


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"temperature": 0, "seed": 5, "n": 1, "top_p": 1},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "ticket", "schema": SCHEMA}}},
    ],
)
def test_what_asks_for_what_it_does_is_taken(client, more):
    assert client.chat("Where is order 4711?", **more).status == 200


OTHER = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("temperature", 0.7),
        ("top_p", 0.5),
        ("n", 2),
        ("stop", ["x"]),
        ("logprobs", True),
        ("response_format", OTHER),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("messages", [{"role": role, "content": "x"} for role in ("user", "assistant", "user")]),
        ("messages", [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x"}]),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(client, param, value):
    status, body, _ = client.chat("x", **{param: value})
    assert (status, body["error"]["param"], body["error"]["code"]) == (400, param, "unsupported")


def test_other_addresses_say_where_to_ask(client):
    for path, body in (("/v1/completions", {"prompt": "x"}), ("/v1/classify", {"input": "x"})):
        reply = client.ask(path, {"model": "tiny", **body})
        assert reply.status == 404
        assert "/v1/chat/completions" in reply.body["error"]["message"]


def test_a_message_over_the_context_is_refused(client):
    status, body, _ = client.chat("gone " * 200)
    assert (status, body["error"]["code"]) == (400, "context_length_exceeded")


def test_a_label_by_a_head_is_weighed_in_one_run(labeller, tiny, monkeypatch):
    served = Served(labeller, slots=4, threads=1, queue=64)
    runs, states = [], served.marker.body.states

    def counted(sequences):
        runs.append(len(sequences))
        return states(sequences)

    monkeypatch.setattr(served.marker.body, "states", counted)
    texts = list(tiny.pairs)
    expected = open_bundle(labeller, threads=1).probabilities(texts)
    for client in listen(labeller, served=served):
        reply = client.ask("/v1/classify", {"model": "tiny", "input": texts})
        assert reply.status == 200
        told = [row["probabilities"] for row in reply.body["data"]]
        assert sum(runs) == len(texts), "each text is run once, however many labels there are"
        for ours, theirs in zip(told, expected, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5)
        said = client.chat(texts[0]).body["choices"][0]["message"]["content"]
        assert said == max(expected[0], key=expected[0].get)
        refused = client.chat("x", response_format={"type": "json_object"})
        assert (refused.status, refused.body["error"]["param"]) == (400, "response_format")
        assert client.ask("/v1/classify", {"model": "tiny", "input": "gone " * 200}).status == 400
