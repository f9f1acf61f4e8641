"""A teacher behind an endpoint as a stage: what it writes, what it drops, and that nothing is bought twice."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from slmops.data.read import read_jsonl, write_jsonl
from slmops.endpoints import retry
from slmops.errors import BadInput, BudgetReached, SlmopsError
from slmops.models.tokenizer import end_of_answer
from slmops.pipeline.keys import address
from slmops.pipeline.stage import Context, Node
from slmops.recipe.evaluate import Price
from slmops.recipe.teachers import Batching, EndpointTeacher
from slmops.recipe.teaching import Budget
from slmops.teach.answers import load_answers
from slmops.teach.endpoint import Pool, forecast
from slmops.teach.paying import EndpointAsking
from slmops.teach.stage_endpoint import TeachByEndpoint
from tests.endpoints.batch_server import BatchServer
from tests.endpoints.teacher_server import Act, TeacherServer
from tests.tiny_task import TASK

TEXTS = ["Where is order 4711?", "I want my 20 € back", "Grüße, Zoë 🙂", "Where is order 4711?"]
ANSWER = '{"intent":"refund","amount":"20 €"}'


def right(_number: int, _text: str) -> Act:
    return Act(text=ANSWER)


class Room:
    """A home in which the stage runs."""

    def __init__(self, folder: Path, tokenizer: Any, kept: Path | None = None) -> None:
        self.folder, self.tokenizer, self.kept = folder, tokenizer, kept or folder / "kept"
        self.data = folder / "data"
        self.data.mkdir(parents=True)
        tokenizer.save(folder / "base" / "model")
        (self.data / "task.json").write_text(json.dumps(TASK.describe()))

    def __call__(self, url: str, texts: list[str] = TEXTS, *, budget: Budget | None = None, **teacher: Any):
        write_jsonl(self.data / "pool.jsonl", ({"id": f"p{i}", "input": text} for i, text in enumerate(texts)))
        out = self.folder / "out"
        out.mkdir(exist_ok=True)
        context = Context(out=out, work=self.folder / "work", kept=self.kept, seed=7, progress=self.notes)
        inputs = {"data": self.data, "model": self.folder / "base"}
        return dict(TeachByEndpoint().run(inputs, asking(url, budget, **teacher), context))

    @property
    def notes(self):
        from slmops.console import Lines

        self.said: list[str] = []
        return Lines(self.said.append)


def asking(url: str, budget: Budget | None = None, **teacher: Any) -> EndpointAsking:
    given: dict[str, Any] = {"kind": "endpoint", "base_url": url, "model": "toy", "concurrency": 2, "retries": 2}
    given |= {"price": Price(input_usd=2.0, output_usd=10.0)}
    return EndpointAsking(teacher=EndpointTeacher(**given | teacher), budget=budget or Budget())


@pytest.fixture
def room(tmp_path, tiny_tokenizer, monkeypatch) -> Room:
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 0.01)
    return Room(tmp_path, tiny_tokenizer)


def test_answers_are_in_the_students_tokens_and_equal_texts_are_asked_once(room, tiny_tokenizer):
    with TeacherServer(right) as server:
        figures = room(server.url, system="Answer in JSON.")
    answers = load_answers(room.folder / "out")
    assert [answer.id for answer in answers] == ["p0", "p1", "p2", "p3"]
    assert {answer.text for answer in answers} == {ANSWER}
    expected = [*tiny_tokenizer.encode(ANSWER), end_of_answer(tiny_tokenizer)]
    assert all(answer.tokens.tolist() == expected and answer.top_ids.shape == (len(expected), 0) for answer in answers)
    assert server.asked.total() == 3
    first = server.requests[0]
    assert (first["max_tokens"], first["temperature"]) == (TASK.max_answer_tokens, 0.0)
    assert [message["role"] for message in first["messages"]] == ["system", "user"]
    assert figures["usd"] == pytest.approx(3 * 110e-6)
    assert (figures["rows"], figures["dropped"], figures["requests"]) == (4, 0, 3)
    assert any("3 of 4 rows to ask, at most" in line and "USD" in line for line in room.said)


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (Act(text="I cannot help with that."), "JSON"),
        (Act(text='{"intent":"ref', finish="length"), "cut off at 60 tokens"),
        (Act(text=""), "the answer is empty"),
        (Act(text=ANSWER, finish="content_filter"), "filter"),
        (Act("status", status=400), "answers 400"),
        (Act("status", status=500), "answers 500"),
    ],
)
def test_what_cannot_be_learned_from_is_dropped_with_the_reason(room, act, reason):
    with TeacherServer(lambda _n, text: act if "20 €" in text else Act(text=ANSWER)) as server:
        room(server.url, [*TEXTS, *(f"order {i}" for i in range(10))])
    dropped = read_jsonl(room.folder / "out" / "dropped.jsonl")
    assert [row["id"] for row in dropped] == ["p1"]
    assert reason in dropped[0]["reason"]
    assert len(load_answers(room.folder / "out")) == 13


def test_what_fails_last_is_counted_too(room):
    texts = [f"order {i}" for i in range(4)]
    with TeacherServer(lambda n, _t: Act("status", status=400) if n == 4 else Act(text=ANSWER)) as server:
        figures = room(server.url, texts, concurrency=1)
    assert (figures["rows"], figures["dropped"], figures["requests"]) == (3, 1, 4)


def test_a_changed_pool_or_budget_buys_only_what_is_new(room):
    with TeacherServer(right) as server:
        room(server.url, ["a", "b", "c"])
        figures = room(server.url, ["b", "d", "a"], budget=Budget(usd=1.0))
    assert server.asked == {"a": 1, "b": 1, "c": 1, "d": 1}
    assert figures["usd"] == pytest.approx(3 * 110e-6), "the costs of these rows, whoever paid for them"


def test_a_teacher_is_asked_in_batches_at_their_price(room):
    how = Batching(poll_seconds=0.005, discount=0.25)
    with BatchServer(right) as server:
        figures = room(server.url, batch=how, budget=Budget(usd=1.0))
        assert (len(server.batches), server.requests) == (1, [])
    assert (figures["rows"], figures["requests"]) == (4, 3)
    assert figures["usd"] == pytest.approx(3 * 110e-6 * 0.75)
    teachers = (asking(server.url, **one).teacher for one in ({}, {"batch": how}))
    most = [forecast(Pool(teacher, TASK, [{"input": "a"}]), ()).most.pico for teacher in teachers]
    assert most[1] == most[0] * 3 // 4
    assert {answer.text for answer in load_answers(room.folder / "out")} == {ANSWER}


def test_two_runs_at_once_buy_nothing_twice(room):
    texts = [f"order {i}" for i in range(12)]
    other = Room(room.folder / "other", room.tokenizer, kept=room.kept)
    with TeacherServer(right, delay_s=0.02) as server, ThreadPoolExecutor() as pool:
        made = list(pool.map(lambda one: one(server.url, texts), (room, other)))
    assert set(server.asked.values()) == {1}
    assert [figures["rows"] for figures in made] == [12, 12]
    assert sum("another run is asking" in line for line in room.said + other.said) == 1


def test_the_budget_ends_it_and_a_larger_one_goes_on(room):
    texts = [f"order {i}" for i in range(30)]
    with TeacherServer(right) as server:
        with pytest.raises(BudgetReached) as error:
            room(server.url, texts, budget=Budget(requests=11))
        assert server.asked.total() == 11
        assert error.value.exit_code == 4
        assert room(server.url, texts, budget=Budget(requests=30))["rows"] == 30
    assert server.asked.total() == 30


def test_what_was_bought_in_vain_is_not_bought_again(room):
    with TeacherServer(lambda _n, _t: Act(text="no")) as server:
        for _ in range(2):
            with pytest.raises(SlmopsError, match=r"none of the first 2[01] answers can be used"):
                room(server.url, [f"order {i}" for i in range(60)])
        bought = server.asked.total()
        with pytest.raises(SlmopsError):
            room(server.url, [f"order {i}" for i in range(60)])
    assert server.asked.total() == bought <= 22


def test_a_missing_key_is_told_before_anything_runs_and_a_given_one_is_nowhere(room, monkeypatch):
    monkeypatch.delenv("BIG_KEY", raising=False)
    with pytest.raises(BadInput, match=r"the teacher big's key is missing: \$BIG_KEY is not set"):
        asking("http://127.0.0.1:9/v1", name="big", key_env="BIG_KEY").check_surroundings()
    monkeypatch.setenv("BIG_KEY", "sk-very-secret")
    with TeacherServer(right) as server:
        room(server.url, key_env="BIG_KEY")
    assert server.headers[0]["Authorization"] == "Bearer sk-very-secret"
    written = b"".join(path.read_bytes() for path in room.folder.rglob("*") if path.is_file())
    assert b"very-secret" not in written + "".join(room.said).encode()


def test_what_is_spent_and_how_does_not_make_answers_anew():
    def key(**changed: Any) -> str:
        budget = changed.pop("budget", None)
        return address([Node("teach", TeachByEndpoint, asking("http://a/v1", budget, **changed))], 7)[0].key

    assert key() == key(budget=Budget(usd=9.0)) == key(key_env="OTHER", concurrency=64, price=None, name="x")
    assert key() == key(batch=Batching())
    assert len({key(), key(model="other"), key(temperature=0.5), key(system="Be brief."), key(top_p=0.9)}) == 5
