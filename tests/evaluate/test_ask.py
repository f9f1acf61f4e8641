"""Asking an endpoint: bounded, kept, and with a key that goes nowhere but there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from judge_server import JudgeServer, honest

from slmops.endpoints import retry
from slmops.errors import BadInput, SlmopsError
from slmops.evaluate.ask import AskEndpoint, Remembered
from slmops.evaluate.judge_prompts import pairwise
from slmops.tasks import Message


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """No waiting between attempts."""
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 0.001)


def prompts(count: int) -> list[list[Message]]:
    return [pairwise(f"question {i}", "good", "good", "bad") for i in range(count)]


A = '```json\n{"better": "A"}\n```'


def test_answers_come_in_order_and_so_many_at_a_time():
    def slow(given):
        import time

        time.sleep(0.02)
        return str(given["request"])

    with JudgeServer(slow) as server:
        answers = AskEndpoint(server.url, "big", None, 64, concurrency=3).ask(prompts(20))
    assert answers == [f"question {i}" for i in range(20)]
    assert 1 < server.most_under_way <= 3
    assert {request["max_tokens"] for request in server.requests} == {64}


def test_the_key_is_that_of_the_variable_and_no_other(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "not-for-you")
    monkeypatch.setenv("JUDGE_KEY", "secret")
    with JudgeServer(honest) as server:
        AskEndpoint(server.url, "big", "JUDGE_KEY", 64).ask(prompts(1))
        AskEndpoint(server.url, "big", None, 64).ask(prompts(1))
    assert server.keys == {"Bearer secret", "Bearer none"}


def test_a_key_that_is_not_there_is_told_before_anyone_is_asked(monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with JudgeServer(honest) as server, pytest.raises(BadInput, match=r"\$JUDGE_KEY is not set"):
        AskEndpoint(server.url, "big", "JUDGE_KEY", 64).ask(prompts(1))
    assert server.requests == []


@pytest.mark.parametrize(("status", "attempts"), [(401, 1), (404, 1), (500, 5), (429, 5)])
def test_an_endpoint_that_refuses_ends_the_work_and_passing_trouble_is_tried_again(status, attempts):
    with JudgeServer(honest, most=0, then=status) as server, pytest.raises(SlmopsError, match=f"answers {status}"):
        AskEndpoint(server.url, "big", None, 64).ask(prompts(1))
    assert len(server.requests) == attempts


def test_a_request_that_the_endpoint_will_not_have_is_no_answer():
    with JudgeServer(honest, most=1, then=400) as server:
        assert AskEndpoint(server.url, "big", None, 64, concurrency=1).ask(prompts(3)) == [A, "", ""]


@pytest.mark.parametrize(
    "raw", [b"<html>busy</html>", b"{}", b"[]", b'"text"', b'{"choices": null}', b'{"choices": []}']
)
def test_what_is_no_endpoint_of_this_kind_is_told(raw):
    with JudgeServer(honest, raw=raw) as server, pytest.raises(SlmopsError, match="does not speak the OpenAI protocol"):
        AskEndpoint(server.url, "big", None, 64).ask(prompts(2))


def test_a_completion_that_says_nothing_is_no_answer():
    with JudgeServer(honest, raw=b'{"choices": [{"index": 0, "message": {"content": null}}]}') as server:
        assert AskEndpoint(server.url, "big", None, 64).ask(prompts(2)) == ["", ""]


def test_nobody_there():
    with JudgeServer(honest) as server:
        url = server.url
    with pytest.raises(SlmopsError, match="does not answer"):
        AskEndpoint(url, "big", None, 64).ask(prompts(1))


def test_an_endpoint_that_dies_midway_is_not_asked_again_what_it_has_said(tmp_path):
    kept = tmp_path / "verdicts.jsonl"
    with JudgeServer(honest, most=10, then=401) as dying, pytest.raises(SlmopsError) as error:
        Remembered(AskEndpoint(dying.url, "big", None, 64, concurrency=1), kept, at_once=4).ask(prompts(20))
    assert "kept" in (error.value.hint or "")
    assert len(kept.read_text().splitlines()) == 8, "two whole parts of four"
    with kept.open("a") as file:
        file.write('{"key": "cut sho')
    with JudgeServer(honest) as well:
        again = Remembered(AskEndpoint(well.url, "big", None, 64), kept, at_once=4)
        assert again.ask(prompts(20)) == [A] * 20
        assert again.ask(prompts(20)) == [A] * 20
        assert len(well.requests) == 12
        again.ask(prompts(20), seed=1)
        assert len(well.requests) == 32, "another seed is another question"
