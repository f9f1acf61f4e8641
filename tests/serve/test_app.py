"""OpenAI's addresses, over real connections."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slmops.bundle import open_bundle
from slmops.serve.access import Keys
from slmops.serve.intake import Limits
from tests.serve.conftest import bundle_of
from tests.serve.listening import Client, listen

KEY = "a-key-of-some-length"


@pytest.fixture(scope="module")
def client(writer) -> Iterator[Client]:
    yield from listen(writer)


@pytest.fixture(scope="module")
def choosing(classifier) -> Iterator[Client]:
    yield from listen(classifier)


def test_a_chat_is_answered(client, tiny):
    for text, expected in tiny.pairs.items():
        status, body, _ = client.chat(text)
        assert status == 200
        (choice,) = body["choices"]
        assert choice["message"] == {"role": "assistant", "content": expected, "refusal": None}
        assert choice["finish_reason"] == "stop"
        assert body["object"] == "chat.completion"
        prompt, answer = len(tiny.prompt(text)), len(tiny.tokenizer.encode(expected)) + 1
        assert [body["usage"][name] for name in ("prompt_tokens", "completion_tokens")] == [prompt, answer]


def test_a_stream_says_the_same_in_pieces(client, tiny):
    for text, expected in tiny.pairs.items():
        *events, last, done = client.stream(text, stream_options={"include_usage": True})
        assert done == "[DONE]"
        assert last["choices"] == []
        assert last["usage"]["completion_tokens"] == len(tiny.tokenizer.encode(expected)) + 1
        deltas = [event["choices"][0] for event in events]
        assert deltas[0]["delta"]["role"] == "assistant"
        assert "".join(choice["delta"].get("content", "") for choice in deltas) == expected
        assert [choice["finish_reason"] for choice in deltas[-2:]] == [None, "stop"]
        assert len({event["id"] for event in events}) == 1


def test_several_answers_each_drawn_for_itself(client):
    told = {"n": 3, "temperature": 2.0, "max_tokens": 12}
    _, body, _ = client.chat("anything", seed=5, **told)
    texts = [choice["message"]["content"] for choice in body["choices"]]
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert len(set(texts)) == 3
    _, again, _ = client.chat("anything", seed=5, **told)
    assert [choice["message"]["content"] for choice in again["choices"]] == texts
    _, other, _ = client.chat("anything", seed=6, **told)
    assert [choice["message"]["content"] for choice in other["choices"]] != texts
    streamed = ["", "", ""]
    for event in client.stream("anything", seed=5, **told)[:-1]:
        choice = event["choices"][0]
        streamed[choice["index"]] += choice["delta"].get("content", "")
    assert streamed == texts


def test_stop_strings_and_limits_end_an_answer(client, tiny):
    text, expected = next(iter(tiny.pairs.items()))
    _, body, _ = client.chat(text, stop=['","order'])
    assert body["choices"][0]["message"]["content"] == expected.partition('","order')[0]
    assert body["choices"][0]["finish_reason"] == "stop"
    _, body, _ = client.chat(text, max_completion_tokens=3)
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 3


def test_log_probabilities(client, tiny):
    text, expected = next(iter(tiny.pairs.items()))
    _, body, _ = client.chat(text, logprobs=True, top_logprobs=3)
    told = body["choices"][0]["logprobs"]["content"]
    assert "".join(token["token"] for token in told[:-1]) == expected
    for token in told:
        assert len(token["top_logprobs"]) == 3
        # The model knows its answers by heart, and greedy takes the likeliest.
        assert token["logprob"] == token["top_logprobs"][0]["logprob"] > -0.1
    _, body, _ = client.ask("/v1/completions", {"model": "tiny", "prompt": "a", "max_tokens": 2, "logprobs": 2})
    told = body["choices"][0]["logprobs"]
    assert [len(told[name]) for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")] == [2] * 4
    assert told["token_logprobs"][0] == max(told["top_logprobs"][0].values())


def test_bare_completions_of_texts_and_of_tokens(client, tiny):
    text, expected = next(iter(tiny.pairs.items()))
    rendered = tiny.tokenizer.render([{"role": "user", "content": text}])
    for prompt in (rendered, [rendered, rendered], tiny.prompt(text)):
        status, body, _ = client.ask("/v1/completions", {"model": "tiny", "prompt": prompt})
        assert status == 200
        assert {choice["text"] for choice in body["choices"]} == {expected}
        assert len(body["choices"]) == (2 if prompt == [rendered, rendered] else 1)
    assert body["object"] == "text_completion"


SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["late", "lost"]}, "n": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["kind", "n"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("seed", range(5))
def test_an_answer_is_held_to_its_schema(client, seed):
    form = {"type": "json_schema", "json_schema": {"name": "ticket", "schema": SCHEMA}}
    _, body, _ = client.chat("anything at all", response_format=form, temperature=2.0, seed=seed)
    answer = json.loads(body["choices"][0]["message"]["content"])
    assert answer["kind"] in ("late", "lost")
    assert answer["n"] in range(10)
    assert body["choices"][0]["finish_reason"] == "stop"


def test_any_object_where_one_is_asked_for(client):
    _, body, _ = client.chat("Where is order 4711?", response_format={"type": "json_object"})
    assert isinstance(json.loads(body["choices"][0]["message"]["content"]), dict)


def test_labels_have_probabilities(choosing, tiny):
    asked = {"model": "tiny", "input": ["I want my 20 € back", "hello"]}
    status, body, _ = choosing.ask("/v1/classify", asked)
    assert status == 200
    for index, found in enumerate(body["data"]):
        assert found["index"] == index
        assert sum(found["probabilities"].values()) == pytest.approx(1)
        assert found["label"] == max(found["probabilities"], key=found["probabilities"].get)
        assert list(found["probabilities"].values()) == sorted(found["probabilities"].values(), reverse=True)
    _, body, _ = choosing.ask("/v1/classify", {**asked, "abstain_below": 1.0})
    assert [found["label"] for found in body["data"]] == [None, None]


def test_calibrated_probabilities_are_those_of_the_bundle(choosing, classifier, tmp_path):
    untold = open_bundle(classifier, threads=1)
    fitted = {"temperature": 3.0, "rows": 60, "answered_accuracy": 0.9, "abstain_below": 0.7}
    errors = {"ece_before": 0.2, "ece_after": 0.02}
    bundle = bundle_of(tmp_path, classifier / "model", untold.task, calibration=fitted | errors)
    asked = {"model": "tiny", "input": "I want my 20 € back"}
    (expected,) = open_bundle(bundle, threads=1).probabilities([asked["input"]])
    plain = choosing.ask("/v1/classify", asked).body
    assert (plain["calibrated"], plain["recommended_abstain_below"]) == (False, None)
    for client in listen(bundle):
        body = client.ask("/v1/classify", asked).body
        assert (body["calibrated"], body["recommended_abstain_below"]) == (True, 0.7)
        assert body["data"][0]["probabilities"] == pytest.approx(expected, abs=1e-4)
        assert body["data"][0]["label"] == plain["data"][0]["label"]
        assert body["data"][0]["probability"] < plain["data"][0]["probability"]


def test_what_a_model_does_not_do_is_said(client, choosing):
    assert client.ask("/v1/classify", {"model": "tiny", "input": "a"}).status == 404
    tool = {"type": "function", "function": {"name": "f"}}
    status, body, _ = client.chat("hello", tools=[tool])
    assert (status, body["error"]["code"]) == (400, "unsupported")


def test_models_and_health(client):
    assert [model["id"] for model in client.ask("/v1/models").body["data"]] == ["tiny"]
    assert client.ask("/v1/models/tiny").body["object"] == "model"
    assert client.ask("/v1/models/other").status == 404
    assert client.ask("/health").status == client.ask("/ready").status == 200


def test_figures_for_prometheus(client, tiny):
    client.chat("a secret that no figure may hold")
    text = client.send("/metrics").body.decode()
    for name in (
        "gen_ai_server_request_duration_seconds",
        "gen_ai_server_time_to_first_token_seconds",
        "gen_ai_server_time_per_output_token_seconds",
        "gen_ai_client_token_usage",
        "slmops_queue_depth",
        "slmops_running",
        "slmops_cache_tokens",
    ):
        assert f"\n{name}" in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        (b"{", None, "cannot be read"),
        (b"\xff", None, "UTF-8"),
        (b"[" * 100_000, None, "nested too deeply"),
        (b'{"model": "tiny", "model": "tiny"}', None, "given twice"),
        (b'{"temperature": NaN}', None, "cannot be read"),
        (b"1" * 10_000, None, "cannot be read"),
        ({}, "model", "required"),
        ({"model": "tiny", "messages": []}, "messages", "at least 1"),
        ({"model": "tiny", "messages": [{"role": "boss", "content": "x"}]}, "messages.0.role", "should be"),
        ({"model": "other", "messages": [{"role": "user", "content": "x"}]}, "model", "no model 'other'"),
        ({"temperature": -1}, "temperature", "greater"),
        ({"temperature": "hot"}, "temperature", "number"),
        ({"top_p": 0}, "top_p", "greater"),
        ({"max_tokens": 0}, "max_tokens", "greater"),
        ({"n": 10**9}, "n", "less"),
        ({"stop": ["x"] * 5}, None, "at most 4"),
        ({"top_logprobs": 2}, None, "logprobs"),
        ({"presence_penalty": 1}, "presence_penalty", "less"),
        ({"max_token": 3}, "max_token", "not permitted"),
        ({"stream_options": {}}, None, "stream"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}}},
            "response_format",
            "cannot be followed",
        ),
        ({"messages": [{"role": "user", "content": "long " * 500}]}, "messages", "tokens"),
    ],
)
def test_what_cannot_be_answered_is_told_in_openais_form(client, body, param, says):
    if isinstance(body, dict) and body.keys() - {"model"} and "messages" not in body:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], **body}
    elif isinstance(body, dict) and body and "model" not in body:
        body = {"model": "tiny", **body}
    status, told, _ = client.ask("/v1/chat/completions", body)
    assert status in (400, 404)
    assert told["error"].keys() == {"message", "type", "param", "code"}
    assert says in told["error"]["message"]
    if param:
        assert (told["error"]["param"] or "").startswith(param)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = ["messages", "temperature", "top_p", "n", "stop", "seed", "max_tokens", "logprobs", "response_format", "tools"]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(odd=st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=3))
def test_no_parameter_brings_the_server_down(client, odd):
    body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2, **odd}
    status, told, _ = client.ask("/v1/chat/completions", json.dumps(body).encode())
    assert status in (200, 400)
    assert "choices" in told or "error" in told


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/v1/nothing", "GET", 404), ("/v1/chat/completions", "GET", 405)]
)
def test_wrong_addresses_and_methods_too(client, path, method, status):
    reply = client.send(path, method=method)
    assert reply.status == status
    assert path in json.loads(reply.body)["error"]["message"]


def test_a_body_that_is_too_large_or_too_slow(writer):
    for client in listen(writer, limits=Limits(body_bytes=1000, body_s=0.3)):
        assert client.chat("x" * 2000).status == 413
        with socket.create_connection(("127.0.0.1", client.port), timeout=30) as slow:
            slow.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            assert b" 408 " in slow.recv(1000)
        assert client.chat("hello").status == 200


def test_without_a_key_there_is_no_answer(writer):
    for client in listen(writer, keys=Keys([KEY, "another-key-that-is-long"])):
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": KEY},
            {"Authorization": f"Basic {KEY}"},
        ):
            status, body, _ = client.ask("/v1/models", **headers)
            assert (status, body["error"]["code"]) == (401, "invalid_api_key")
        assert client.ask("/v1/models", Authorization=f"Bearer {KEY}").status == 200
        assert client.ask("/health").status == 200


def test_a_full_queue_says_when_to_come_again(writer):
    for client in listen(writer, slots=1, queue=1):
        with ThreadPoolExecutor(8) as pool:
            ask = partial(client.chat, "hello", max_tokens=100, temperature=2.0)
            replies = [one.result() for one in [pool.submit(ask, seed=seed) for seed in range(8)]]
        refused = [reply for reply in replies if reply.status == 429]
        assert refused
        assert all(int(reply.headers["Retry-After"]) >= 1 for reply in refused)
        assert {reply.status for reply in replies} == {200, 429}


def test_of_texts_that_are_too_many_none_goes_on(classifier):
    for client in listen(classifier, slots=1, queue=2):
        asked = {"model": "tiny", "input": ["hello"] * 200}
        assert client.ask("/v1/classify", asked).status == 429
        assert client.ask("/v1/classify", {**asked, "input": "hello"}).status == 200
        figures = client.send("/metrics").body.decode()
        assert 'error_type="cancelled"' in figures


def test_the_log_tells_where_and_not_what(writer, monkeypatch, caplog):
    asked = "what nobody but the model may read"

    def fails(*_given, **_named):
        raise LookupError(asked)

    for client in listen(writer):
        monkeypatch.setattr(client.served, "prompt", fails)
        status, body, _ = client.chat(asked)
        assert (status, body["error"]["type"]) == (500, "server_error")
        assert "LookupError" in caplog.text
        assert "_prompt" in caplog.text
        assert asked not in caplog.text + body["error"]["message"]


def test_who_hangs_up_is_given_up_within_a_step(writer):
    for client in listen(writer, slots=1):
        body = {"model": "tiny", "prompt": "a", "max_tokens": 100, "temperature": 2.0, "stream": True}
        content = json.dumps(body).encode()
        for _ in range(6):
            with socket.create_connection(("127.0.0.1", client.port), timeout=30) as leaving:
                head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
                leaving.sendall(head.encode() + content)
                leaving.recv(10)
        assert client.chat("Where is order 4711?").status == 200
        figures = client.send("/metrics").body.decode()
        assert 'error_type="cancelled"' in figures
