"""Rows, talks and solutions out of a teacher behind a real server, and out of a model here."""

from __future__ import annotations

import json
import multiprocessing
import random
import re
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from slmops.data.read import read_jsonl, write_jsonl
from slmops.endpoints import retry
from slmops.endpoints.ledger import Ledger
from slmops.errors import BadInput, BudgetReached, SlmopsError
from slmops.pipeline.keys import address
from slmops.pipeline.stage import Context, Node
from slmops.recipe.evaluate import Price
from slmops.recipe.privacy import PrivacySettings
from slmops.recipe.teachers import Batching, EndpointTeacher
from slmops.recipe.teaching import Budget
from slmops.recipe.writing import Converse, Reason, Write
from slmops.tasks import Classification, Conversation, Maths, ParseFailure, Task
from slmops.tasks.conversation import turns
from slmops.teach.paying import EndpointAsking, LocalAsking
from slmops.teach.stage_endpoint import TeachByEndpoint
from slmops.teach.stage_write import (
    ConverseRows,
    ConverseSettings,
    ReasonRows,
    ReasonSettings,
    WriteRows,
    WriteSettings,
)
from tests.endpoints.batch_server import BatchServer
from tests.endpoints.teacher_server import PROMPT_TOKENS, READ, WORDS, WRITTEN, Act, TeacherServer

SORT = Classification(("refund", "thanks"), None, 8)
ROWS = {
    "train": [("please refund order 1", "refund"), ("refund it now", "refund"), ("lovely lamp", "thanks")],
    "validation": [("a validation text", "thanks")],
    "test": [("a secret test text", "refund")],
    "pool": [("a text of the pool", None)],
}
CHARGE = PROMPT_TOKENS * READ + WORDS * WRITTEN
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pytest", "aiohttp"])


def asking(url: str, budget: Budget | None = None, **teacher: Any) -> EndpointAsking:
    given: dict[str, Any] = {"kind": "endpoint", "base_url": url, "model": "toy", "concurrency": 3, "retries": 2}
    given |= {"price": Price(input_usd=2.0, output_usd=10.0)}
    return EndpointAsking(teacher=EndpointTeacher(**given | teacher), budget=budget or Budget())


def labelled(text: str) -> str | None:
    """The label that a request asks texts of."""
    found = re.search(r"label of each text of yours is(?: still)?: (\w+)", text)
    return found[1] if found else None


def writes(number: int, text: str) -> Act:
    """Two new texts a request, between prose; and answers where it is asked for one."""
    if "JSON array" not in text:
        return Act(text="refund" if "refund" in text else "thanks")
    items = [f"{labelled(text) or 'some'} text {number}.{i}" for i in range(2)]
    return Act(text=f"Sure:\n```json\n{json.dumps(items)}\n```")


class Home:
    """Where stages run on artifacts of rows."""

    def __init__(self, folder: Path, task: Task = SORT, rows: Any = ROWS) -> None:
        self.folder, self.kept, self.runs = folder, folder / "kept", 0
        self.data = folder / "data"
        self.data.mkdir(parents=True, exist_ok=True)
        for side, texts in rows.items():
            made = [{"id": f"{side}-{i}", "input": text, "output": answer} for i, (text, answer) in enumerate(texts)]
            if side == "pool":
                made = [{"id": row["id"], "input": row["input"]} for row in made]
            write_jsonl(self.data / f"{side}.jsonl", made)
        write_jsonl(self.data / "dropped.jsonl", [])
        (self.data / "task.json").write_text(json.dumps(task.describe()))
        (self.data / "data.json").write_text(json.dumps({"rows": {side: len(r) for side, r in rows.items()}}))
        self.said: list[str] = []

    def run(self, stage: Any, settings: Any, inputs: dict[str, Path] | None = None) -> dict[str, Any]:
        from slmops.console import Lines

        self.runs += 1
        self.out = self.folder / f"out-{self.runs}"
        self.out.mkdir()
        progress = Lines(self.said.append)
        context = Context(out=self.out, work=self.folder / "work", kept=self.kept, seed=7, progress=progress)
        return dict(stage().run({"data": self.data, **(inputs or {})}, settings, context))

    def write(self, url: str, budget: Budget | None = None, **write: Any) -> dict[str, Any]:
        return self.run(WriteRows, WriteSettings(write=Write(**write), endpoint=asking(url, budget)))

    def rows(self, name: str = "written") -> list[dict[str, Any]]:
        return read_jsonl(self.out / f"{name}.jsonl")


@pytest.fixture
def home(tmp_path, monkeypatch) -> Home:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.002)
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 0.01)
    return Home(tmp_path)


def test_new_rows_stand_behind_the_pool_and_nothing_else_changes(home):
    with TeacherServer(writes) as server:
        figures = home.write(server.url, rows=5, texts=2, shots=2)
    written = home.rows()
    assert [row["id"] for row in home.rows("pool")] == ["pool-0", *(f"written-{n}" for n in range(1, 6))]
    assert len({row["input"] for row in written}) == 5
    assert (figures["written"], figures["missing"], figures["pool_rows"], figures["requests"]) == (5, 0, 6, 3)
    assert figures["usd"] == pytest.approx(3 * CHARGE / 1e12)
    counts = json.loads((home.out / "data.json").read_text())
    assert (counts["rows"]["pool"], counts["written"]) == (6, 5)
    for name in ("train.jsonl", "validation.jsonl", "test.jsonl", "task.json"):
        assert (home.out / name).read_bytes() == (home.data / name).read_bytes()
    asked = [body["messages"][-1]["content"] for body in server.requests]
    assert all("secret" not in text and "validation" not in text for text in asked), "training rows alone are shown"
    assert {body["temperature"] for body in server.requests} == {0.9}
    assert any("ask toy: 12 requests at most" in line for line in home.said), "three a round, four rounds"


def test_texts_are_asked_for_in_batches_where_answers_are(home):
    with BatchServer(writes) as server:
        endpoint = asking(server.url, batch=Batching(poll_seconds=0.005))
        figures = home.run(WriteRows, WriteSettings(write=Write(rows=5, texts=2), endpoint=endpoint))
    assert (figures["written"], figures["requests"], server.requests) == (5, 3, [])
    assert figures["usd"] == pytest.approx(3 * CHARGE / 2 / 1e12)
    assert len(server.batches) == 1


def test_labels_get_the_rows_that_they_lack(home):
    with TeacherServer(writes) as server:
        home.write(server.url, rows=5, balance=True, texts=2)
        assert Counter(row["wanted"] for row in home.rows()) == {"refund": 2, "thanks": 3}
        assert all(row["input"].startswith(row["wanted"]) for row in home.rows())
        home.write(server.url, per_label={"thanks": 4}, texts=2, by="paraphrase")
        assert Counter(row["wanted"] for row in home.rows()) == {"thanks": 4}
        home.write(server.url, rows=6, texts=2, by="harder")
        assert Counter(row["wanted"] for row in home.rows()) == {"refund": 4, "thanks": 2}, "as what they vary"
        with pytest.raises(BadInput, match=r"per_label\.thank: no training row has this label"):
            home.write(server.url, per_label={"thank": 4})


def test_texts_that_are_no_rows_are_dropped_with_the_reason(home):
    good = iter(f"text {n}" for n in range(100))
    bad = [
        "A secret  TEST text", "a validation text", "lovely lamp", "a text of the pool", "Refund", "", "x" * 43, 7,
    ]  # fmt: skip

    def act(number: int, _text: str) -> Act:
        texts = [next(good), *bad, next(good)] if number == 1 else [next(good), "text 0", next(good)]
        return Act(text=json.dumps(texts))

    with TeacherServer(act) as server:
        figures = home.write(server.url, rows=4, texts=10)
    assert [row["input"] for row in home.rows()] == ["text 0", "text 1", "text 2", "text 3"]
    assert Counter(row["reason"] for row in home.rows("unwritten")) == {
        "also in test": 1,
        "also in validation": 1,
        "also in train": 1,
        "also in pool": 1,
        "it is an answer, not a text": 1,
        "it is empty": 1,
        "longer than 42 bytes": 1,
        "it must be a text": 1,
        "repeats another written text": 1,
    }
    assert figures["dropped"] == 9


def test_a_teacher_that_repeats_itself_ends_with_what_it_did(home):
    with TeacherServer(lambda _n, _t: Act(text='["one text", "lovely lamp"]')) as server:
        with pytest.raises(SlmopsError, match=r"wrote 1 of 6 rows in 3 rounds; dropped: .* repeats another") as error:
            home.write(server.url, rows=6, texts=2, rounds=3)
        assert server.asked.total() == 9, "three requests a round, and no more rounds than allowed"
        assert "at_least" in (error.value.hint or "")
        home.write(server.url, rows=6, texts=2, rounds=3, at_least=0.1)
        assert server.asked.total() == 9, "what was bought is not bought again"
    assert len(home.rows()) == 1


def test_a_teacher_that_writes_no_lists_is_given_up_and_not_asked_again(home):
    with TeacherServer(lambda _n, _t: Act(text="I cannot help with that.")) as server:
        with pytest.raises(SlmopsError, match=r"none of the first 2\d answers can be used"):
            home.write(server.url, rows=100, texts=1)
        bought = server.asked.total()
        with pytest.raises(SlmopsError, match="none of the first"):
            home.write(server.url, rows=100, texts=1)
    assert server.asked.total() == bought < 30


def test_a_request_that_fails_for_good_costs_its_texts_alone(home):
    with TeacherServer(lambda n, t: Act("status", status=400) if n == 2 else writes(n, t)) as server:
        figures = home.write(server.url, rows=6, texts=2)
    assert figures["written"] == 6
    assert server.asked.total() == 4


def test_the_budget_is_one_for_writing_and_answering_and_the_same_run_goes_on(home, tiny_tokenizer):
    tiny_tokenizer.save(home.folder / "base" / "model")
    with TeacherServer(writes) as server:
        with pytest.raises(BudgetReached, match=r"teach\.budget\.requests 2"):
            home.write(server.url, Budget(requests=2), rows=8, texts=2)
        assert server.asked.total() == 2
        home.write(server.url, Budget(requests=4), rows=8, texts=2)
        assert server.asked.total() == 4
        inputs = {"data": home.out, "model": home.folder / "base"}
        with pytest.raises(BudgetReached, match=r"requests 7 \(7 spent\)"):
            home.run(TeachByEndpoint, asking(server.url, Budget(requests=7)), inputs)
        assert server.asked.total() == 7
        figures = home.run(TeachByEndpoint, asking(server.url, Budget(requests=13)), inputs)
        assert (figures["requests"], server.asked.total()) == (13, 13)
        # Answers to rows that were written before count when more are to be written.
        with pytest.raises(BudgetReached, match=r"requests 13 \(13 spent\)"):
            home.write(server.url, Budget(requests=13), rows=20, texts=2)
    assert server.asked.total() == 13


def test_a_text_for_a_label_that_is_answered_with_another_is_dropped(home, tiny_tokenizer):
    tiny_tokenizer.save(home.folder / "base" / "model")

    def act(number: int, text: str) -> Act:
        if "JSON array" in text:
            return Act(text='["a broken lamp", "my refund is late"]')
        return Act(text="refund" if "refund" in text else "thanks")

    with TeacherServer(act) as server:
        home.write(server.url, per_label={"refund": 2}, texts=2)
        figures = home.run(TeachByEndpoint, asking(server.url), {"data": home.out, "model": home.folder / "base"})
    assert (figures["rows"], figures["dropped"]) == (2, 1)
    assert home.rows("dropped")[0]["reason"] == "written for the label refund, answered with thanks"


MANY = {**ROWS, "train": [(f"please refund order {n} of the many", "refund") for n in range(60)]}
KILLED = {"rows": 120, "texts": 2, "rounds": 2, "at_least": 0.0}


def write_in_process(folder: Path, url: str, usd: float) -> None:
    with suppress(BudgetReached):
        Home(folder, rows=MANY).write(url, Budget(usd=usd), **KILLED)


def sent(server: TeacherServer) -> Counter[str]:
    """How often each question was sent, by its key: questions may have the same messages."""
    return Counter(headers["Idempotency-Key"] for headers in server.headers)


def test_killed_at_random_nothing_is_bought_twice_and_the_rows_are_the_same(tmp_path):
    rng = random.Random(3)

    def act(_number: int, text: str) -> Act:
        # What is written depends on the request alone, as the ledger has it.
        return Act(text=json.dumps([f"{hash(text) % 10**9} {i}" for i in range(2)]))

    with TeacherServer(act, delay_s=0.005) as server:
        whole = Home(tmp_path / "whole", rows=MANY)
        whole.write(server.url, **KILLED)
        expected, bought = whole.rows(), sent(server)
        server.headers.clear()
        server.charged = 0
        kills = 0
        for attempt in range(8):
            folder = tmp_path / f"killed-{attempt}"
            folder.mkdir()
            (folder / "kept").symlink_to(tmp_path / "kept")
            (tmp_path / "kept").mkdir(exist_ok=True)
            process = PROCESSES.Process(target=write_in_process, args=(folder, server.url, 5.0))
            begun = server.asked.total()
            process.start()
            while process.is_alive() and server.asked.total() == begun:
                time.sleep(0.001)
            process.join(rng.uniform(0.01, 0.06))
            kills += process.is_alive()
            process.kill()
            process.join()
            time.sleep(0.02)
        last = Home(tmp_path / "last", rows=MANY)
        last.kept = tmp_path / "kept"
        figures = last.write(server.url, **KILLED)
    assert kills >= 3
    assert last.rows() == expected
    assert sent(server).keys() == bought.keys()
    assert sum(times - 1 for times in sent(server).values()) <= kills * 3, "only what was in flight at a kill"
    assert server.charged <= round(figures["usd"] * 10**12)
    with closing(Ledger(tmp_path / "kept" / "endpoints.db", Budget())) as ledger:
        assert len(ledger.answers.find(json.loads((last.out / "asked.json").read_text()))) == len(bought) >= 60


def test_ids_are_new_whatever_the_pools_are(home):
    write_jsonl(home.data / "pool.jsonl", [{"id": "written-1", "input": "a text of the pool"}])
    with TeacherServer(writes) as server:
        home.write(server.url, rows=2, texts=2)
    ids = [row["id"] for row in home.rows("pool")]
    assert len(ids) == len(set(ids)) == 3


def test_what_is_spent_and_how_does_not_write_rows_anew():
    def key(budget: Budget | None = None, write: Any = None, **changed: Any) -> str:
        settings = WriteSettings(write=Write(**write or {"rows": 3}), endpoint=asking("http://a/v1", budget, **changed))
        return address([Node("write", WriteRows, settings)], 7)[0].key

    assert key() == key(Budget(usd=9.0)) == key(key_env="OTHER", concurrency=64, price=None, name="x")
    assert len({key(), key(model="other"), key(write={"rows": 4}), key(write={"rows": 3, "by": "harder"})}) == 4
    with pytest.raises(BadInput, match=r"\$NO_SUCH_KEY is not set"):
        WriteSettings(write=Write(rows=1), endpoint=asking("http://a/v1", key_env="NO_SUCH_KEY")).check_surroundings()


SUMS = {
    "train": [("What is 2 + 3?", 5), ("What is 4 + 4?", 8), ("What is 10 / 4?", "so it is 2.5")],
    "validation": [("What is 1 + 1?", 2), ("What is 9 + 9?", 18)],
    "test": [("What is 7 + 7?", 14)],
    "pool": [("What is 6 + 6?", None)],
}
MATHS = Maths("Be exact.", 40)


def solves(number: int, text: str) -> Act:
    """Right at once for one, at the third attempt for another, never for two."""
    if "2 + 3" in text:
        return Act(text="Two and three are five.\n#### 5.0")
    if "10 / 4" in text:
        return Act(text="Ten by four.\n#### 5/2" if number > 8 else "Ten by four.\n#### 3")
    if "1 + 1" in text:
        return Act(text="One and one.\n#### 2")
    return Act(text="#### 8" if "4 + 4" in text else "Nine and n", finish="stop" if "4 + 4" in text else "length")


def reasoned(url: str, budget: Budget | None = None, **given: Any) -> ReasonSettings:
    return ReasonSettings(reason=Reason(**given), endpoint=asking(url, budget, concurrency=1))


def test_solutions_that_end_in_the_known_answer_take_its_place(tmp_path):
    home = Home(tmp_path, MATHS, SUMS)
    with TeacherServer(solves) as server:
        figures = home.run(ReasonRows, reasoned(server.url, attempts=3))
        again = home.run(ReasonRows, reasoned(server.url, attempts=3))
        assert server.asked.total() == 11, "five, then three that have none, twice; and nothing anew"
    assert again == figures
    assert [(row["id"], row["output"]) for row in home.rows("train")] == [
        ("train-0", "Two and three are five.\n#### 5.0"),
        ("train-2", "Ten by four.\n#### 5/2"),
    ]
    assert [row["output"] for row in home.rows("validation")] == ["One and one.\n#### 2", 18]
    assert all(MATHS.check(row["output"]) is None for row in home.rows("train"))
    assert (figures["solved"], figures["unsolved"], figures["solved_validation"]) == (2, 1, 1)
    assert Counter(row["reason"] for row in home.rows("wrong")) == {
        "without steps": 3,
        "cut off at 40 tokens": 3,
        "ends in another answer than the known one": 2,
    }
    counts = json.loads((home.out / "data.json").read_text())
    assert (counts["rows"]["train"], counts["rows"]["pool"], counts["solved"]) == (2, 1, 2)
    for name in ("test.jsonl", "pool.jsonl", "task.json"):
        assert (home.out / name).read_bytes() == (home.data / name).read_bytes()
    assert {body["max_tokens"] for body in server.requests} == {40}
    assert all("Be exact." in body["messages"][-1]["content"] for body in server.requests)
    assert any("ask toy: 15 requests at most" in line for line in home.said)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Two and three are five.\n#### 5", None),
        ("Two and three are five. #### 5.00", None),
        ("Two and three.\nThat is \\boxed{5}", None),
        ("#### 5", "without steps"),
        ("**\n#### 5", "without steps"),
        ("5", "without steps"),
        ("The answer is 5", "without steps"),
        ("Two and three.\n#### five", "no number is in the answer"),
        ("Two and three.\n#### 6", "ends in another answer than the known one"),
        ("", "no number is in the answer"),
    ],
)
def test_what_of_a_solution_is_looked_at(tmp_path, text, reason):
    home = Home(tmp_path, MATHS, {**SUMS, "train": [("What is 2 + 3?", 5)], "validation": []})
    with TeacherServer(lambda _n, _t: Act(text=text)) as server, suppress(SlmopsError):
        home.run(ReasonRows, reasoned(server.url, attempts=1, at_least=0.0))
    if reason is None:
        assert home.rows("train")[0]["output"] == text
    else:
        with TeacherServer(lambda _n, _t: Act(text=text)) as server, pytest.raises(SlmopsError, match=reason):
            home.run(ReasonRows, reasoned(server.url, attempts=1))


def test_too_few_right_solutions_end_the_run(tmp_path):
    home = Home(tmp_path, MATHS, SUMS)
    with TeacherServer(solves) as server:
        with pytest.raises(SlmopsError, match=r"solved 1 of 3 training rows in 1 attempts each; others: 1 "):
            home.run(ReasonRows, reasoned(server.url, attempts=1, at_least=0.5))
        with pytest.raises(BudgetReached, match="requests 6"):
            home.run(ReasonRows, reasoned(server.url, Budget(requests=6), attempts=3))
        assert server.asked.total() == 6


TALKS = {
    "train": [
        ("my lamp is broken", "which one?"),
        (json.dumps([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hello"}]), "hi"),
    ],
    "validation": [("v", "w")],
    "test": [("t", "u")],
    "pool": [("p", None)],
}
CHAT = Conversation("You help.", 20)
PERSONAS = ["a hurried driver", "a patient gardener"]


def talks(number: int, text: str) -> Act:
    if "You play the user" not in text:
        return Act(text=f"assistant says {number}")
    return Act(text=f"User: {'driver' if 'driver' in text else 'gardener'} asks {number}")


def talking(url: str, budget: Budget | None = None, **given: Any) -> ConverseSettings:
    converse = Converse(**{"rows": 4, "personas": PERSONAS} | given)
    return ConverseSettings(converse=converse, endpoint=asking(url, budget))


def test_talks_go_to_and_fro_and_end_with_the_user(tmp_path):
    home = Home(tmp_path, CHAT, TALKS)
    with TeacherServer(talks) as server:
        figures = home.run(ConverseRows, talking(server.url, turns=3))
        assert home.run(ConverseRows, talking(server.url, turns=3)) == figures
    assert (figures["written"], server.asked.total()) == (4, 16)
    rows = home.rows("pool")
    assert [row["id"] for row in rows[1:]] == [f"written-talk-{n}" for n in range(1, 5)]
    held = [turns(row["input"]) for row in rows[1:]]
    for talk, persona in zip(held, ["driver", "gardener"] * 2, strict=True):
        own = [message for message in talk if message["role"] != "system"]
        assert [message["role"] for message in own] == ["user", "assistant"] * 2 + ["user"]
        assert own[0]["content"] in ("my lamp is broken", "hello")
        assert all(message["content"].startswith(f"{persona} asks") for message in own[2::2])
        assert not isinstance(CHAT.render(json.dumps(talk)), ParseFailure)
    assert Counter(talk[-5]["content"] for talk in held) == {"my lamp is broken": 2, "hello": 2}
    assistants = [body["messages"] for body in server.requests if len(body["messages"]) > 1]
    assert {messages[0]["content"] for messages in assistants} == {"You help.", "Be kind."}
    assert {body["max_tokens"] for body in server.requests} == {20, 128}


def test_a_talk_in_which_nothing_is_said_is_dropped_with_the_reason(tmp_path):
    def act(number: int, text: str) -> Act:
        if "driver" in text:
            return Act(text="my  LAMP is broken" if "lamp" in text else "hello", finish="stop")
        return talks(number, text)

    home = Home(tmp_path, CHAT, TALKS)
    with TeacherServer(act) as server:
        figures = home.run(ConverseRows, talking(server.url, turns=2, at_least=0.5))
        assert (figures["written"], figures["dropped"]) == (2, 2)
        assert {row["reason"] for row in home.rows("unwritten")} == {"the user repeats a message"}
        with pytest.raises(SlmopsError, match=r"2 of 4 talks came to their end; others: 2 the user repeats"):
            home.run(ConverseRows, talking(server.url, turns=2))
    cut = TeacherServer(lambda _n, _t: Act(text="so", finish="length"))
    with cut, pytest.raises(SlmopsError, match=r"0 of 4 talks .* 4 a message of the assistant was cut off"):
        home.run(ConverseRows, talking(cut.url, turns=2))


def answers(number: int, _text: str) -> Act:
    return Act(text=f"assistant says {number}")


def another(url: str, **given: Any) -> EndpointTeacher:
    price = Price(input_usd=4.0, output_usd=30.0)
    return EndpointTeacher(
        **{"kind": "endpoint", "name": "guest", "base_url": url, "model": "other", "price": price} | given
    )


def test_another_plays_the_user_and_one_budget_counts_both(tmp_path, monkeypatch):
    monkeypatch.setenv("GUEST_KEY", "sk-of-the-guest")
    home = Home(tmp_path, CHAT, TALKS)
    with TeacherServer(answers) as assistant, TeacherServer(talks) as guest:
        settings = talking(assistant.url, turns=3).model_copy(update={"user": another(guest.url, key_env="GUEST_KEY")})
        figures = home.run(ConverseRows, settings)
        assert not any("You play the user" in text for text in assistant.asked)
        assert all("You play the user" in text for text in guest.asked)
        assert {one["Authorization"] for one in guest.headers} == {"Bearer sk-of-the-guest"}
        assert {one["Authorization"] for one in assistant.headers} == {"Bearer none"}
        assert {body["model"] for body in guest.requests} == {"other"}
        assert {body["max_tokens"] for body in guest.requests} == {128}
        assert (assistant.asked.total(), guest.asked.total()) == (8, 8)
        assert home.run(ConverseRows, settings) == figures, "nothing is bought twice"
        assert figures["requests"] == 16
    assert figures["usd"] == 8 * (CHARGE + PROMPT_TOKENS * 4e6 + WORDS * 30e6) / 1e12
    assert any("ask toy and other: 16 requests at most" in line for line in home.said)
    for row in home.rows("pool")[1:]:
        own = [message["content"] for message in turns(row["input"]) or [] if message["role"] != "system"]
        assert all(text.startswith("assistant says") for text in own[1::2])
        assert all("asks" in text for text in own[2::2])
    keys = json.loads((home.out / "asked.json").read_text())
    assert len(set(keys)) == 16, "what `teach` counts against the budget as well"


def test_a_budget_ends_the_talk_of_two(tmp_path):
    home = Home(tmp_path, CHAT, TALKS)
    with TeacherServer(answers) as assistant, TeacherServer(talks) as guest:
        settings = talking(assistant.url, Budget(requests=10), turns=3).model_copy(update={"user": another(guest.url)})
        with pytest.raises(BudgetReached, match=r"requests 10 \(10 spent\)"):
            home.run(ConverseRows, settings)
        assert assistant.asked.total() + guest.asked.total() == 10
        more = settings.model_copy(update={"endpoint": asking(assistant.url, Budget(requests=16))})
        assert home.run(ConverseRows, more)["written"] == 4
        assert (assistant.asked.total(), guest.asked.total()) == (8, 8), "what was bought is not bought again"


def test_the_user_too_sees_placeholders_and_is_written_down_by_its_name(tmp_path):
    from slmops.privacy.audit import EGRESS, read_log

    private = {**TALKS, "train": [("I am zora.quist@canary-mail.example", "which one?")]}
    home = Home(tmp_path, CHAT, private)
    with TeacherServer(answers) as assistant, TeacherServer(talks) as guest:
        settings = talking(assistant.url, rows=1, turns=2).model_copy(update={"user": another(guest.url)})
        endpoint = settings.endpoint.model_copy(update={"privacy": PrivacySettings(loopback="remote")})
        home.run(ConverseRows, settings.model_copy(update={"endpoint": endpoint}))
        assert not any("zora" in text for text in (*assistant.asked, *guest.asked))
    assert "I am zora.quist@canary-mail.example" in home.rows()[0]["input"]
    found, _ = read_log(home.kept / EGRESS)
    assert [(line["who"], line["model"]) for line in found] == [("teacher endpoint", "toy"), ("user guest", "other")]


def test_whoever_plays_the_user_is_in_the_key_and_what_it_costs_is_not(tmp_path):
    def key(user: EndpointTeacher | None) -> str:
        settings = talking("https://one.example/v1").model_copy(update={"user": user})
        return address([Node("converse", ConverseRows, settings)], 7)[0].key

    url = "https://two.example/v1"
    same = {"key_env": "OTHER", "price": None, "concurrency": 1, "name": "somebody"}
    assert key(another(url)) == key(another(url, **same))
    assert len({key(None), key(another(url)), key(another(url, model="third"))}) == 3


# A model on this machine.

WRITE = Write(rows=2, texts=2, shots=1, max_tokens=40, temperature=0.1)
ONE = {**ROWS, "train": [("refund it now", "refund")]}
SUM = {**SUMS, "train": [("What is 2 + 3?", 5)], "validation": []}
TALK = {**TALKS, "train": [("hello", "hi")]}


@pytest.fixture(scope="module")
def writer(tiny_tokenizer, tmp_path_factory) -> dict[str, Path]:
    """A small model that knows by heart what it is to say to four requests."""
    import torch

    from slmops.models.source import save_model
    from slmops.teach import solve, write
    from slmops.teach.converse import _Talk, play
    from tests.families import make

    row = {"id": "train-0", "input": "refund it now", "output": "refund"}
    said = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    pairs = [
        (write.ask_for(SORT, WRITE, [row], None), '["', 'a new text", "one more"]'),
        (solve.ask_for(MATHS, {"input": "What is 2 + 3?"}), "", "Count on.\n#### 5"),
        (CHAT.render(json.dumps(said[:1])), "", "hi"),
        (play(_Talk(said, "a driver")), "", "and now?"),
    ]
    torch.manual_seed(0)
    (end,) = tiny_tokenizer.end_ids
    model = make("llama", vocab_size=tiny_tokenizer.size, eos_token_id=end, max_position_embeddings=2048)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(80):
        worst = 0.0
        for messages, begun, answer in pairs:
            prompt = [*tiny_tokenizer.prompt(messages), *tiny_tokenizer.encode(begun)]
            written = [*tiny_tokenizer.encode(answer), end]
            labels = torch.tensor([[-100] * len(prompt) + written])
            loss = model(input_ids=torch.tensor([[*prompt, *written]]), labels=labels).loss
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            worst = max(worst, loss.item())
        if worst < 0.02:
            break
    assert worst < 0.05, "it must know what it says by heart"
    folder = tmp_path_factory.mktemp("writer")
    save_model(model, folder / "model")
    tiny_tokenizer.save(folder / "model")
    return {"model": folder}


LOCAL = LocalAsking(engine="transformers", batch=2)


def test_a_model_here_writes_rows(tmp_path, writer):
    home = Home(tmp_path, SORT, ONE)
    figures = home.run(WriteRows, WriteSettings(write=WRITE, local=LOCAL), writer)
    assert [row["input"] for row in home.rows()] == ["a new text", "one more"]
    assert figures == {"written": 2, "missing": 0, "dropped": 0, "pool_rows": 3}
    assert not (home.out / "asked.json").exists()


def test_a_request_that_a_model_here_cannot_hold_says_what_to_do(tmp_path, tiny):
    home = Home(tmp_path, SORT, ONE)
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "model").symlink_to(tiny.folder)
    with pytest.raises(BadInput, match=r"teacher writes rows, round 1: .* does not fit into a context of 128") as error:
        home.run(WriteRows, WriteSettings(write=WRITE, local=LOCAL), {"model": tmp_path / "short"})
    assert "teach.write.shots" in (error.value.hint or "")


def test_a_model_here_of_whose_first_replies_none_can_be_used_is_given_up(tmp_path, writer):
    home = Home(tmp_path, SORT, MANY)
    settings = WriteSettings(write=WRITE.model_copy(update={"rows": 400, "max_tokens": 4}), local=LOCAL)
    with pytest.raises(SlmopsError, match=r"none of the first 2\d answers can be used"):
        home.run(WriteRows, settings, writer)
    assert len(list((home.folder / "work" / "replies").iterdir())) < 20


def test_a_model_here_that_repeats_itself_ends_after_its_rounds(tmp_path, writer):
    home = Home(tmp_path, SORT, ONE)
    with pytest.raises(SlmopsError, match=r"wrote 2 of 4 rows in 4 rounds; dropped: \d+ repeats another written text"):
        home.run(WriteRows, WriteSettings(write=WRITE.model_copy(update={"rows": 4}), local=LOCAL), writer)
    replies = {path: path.stat().st_mtime_ns for path in (home.folder / "work" / "replies").iterdir()}
    with pytest.raises(SlmopsError):
        home.run(WriteRows, WriteSettings(write=WRITE.model_copy(update={"rows": 4}), local=LOCAL), writer)
    after = {path: path.stat().st_mtime_ns for path in (home.folder / "work" / "replies").iterdir()}
    assert replies == after, "what was written before a stop is not written again"
    assert len(replies) > 1, "a request with the same messages is another draw"


def test_a_model_here_solves_and_talks(tmp_path, writer):
    home = Home(tmp_path / "sums", MATHS, SUM)
    settings = ReasonSettings(reason=Reason(temperature=0.1), local=LOCAL)
    assert home.run(ReasonRows, settings, writer)["solved"] == 1
    assert home.rows("train")[0]["output"] == "Count on.\n#### 5"
    home = Home(tmp_path / "talks", CHAT, TALK)
    converse = Converse(rows=1, turns=2, personas=["a driver"], temperature=0.1)
    assert home.run(ConverseRows, ConverseSettings(converse=converse, local=LOCAL), writer)["written"] == 1
    assert [m["content"] for m in turns(home.rows()[0]["input"]) or []] == ["hello", "hi", "and now?"]


def test_a_model_here_plays_the_user_to_one_behind_an_endpoint(tmp_path, writer):
    home = Home(tmp_path, CHAT, TALK)
    converse = Converse(rows=1, turns=2, personas=["a driver"], temperature=0.1)
    inputs = {"user": writer["model"]}
    with TeacherServer(lambda _n, _t: Act(text="hi")) as assistant:
        settings = ConverseSettings(converse=converse, endpoint=asking(assistant.url), local=LOCAL)
        figures = home.run(ConverseRows, settings, inputs)
        assert home.run(ConverseRows, settings, inputs) == figures
        assert (figures["requests"], assistant.asked.total()) == (1, 1), "what is said here costs nothing"
    assert [m["content"] for m in turns(home.rows()[0]["input"]) or []] == ["hello", "hi", "and now?"]
    assert any("ask toy: 1 requests at most" in line for line in home.said)


def test_two_models_here_talk(tmp_path, writer):
    home = Home(tmp_path, CHAT, TALK)
    settings = ConverseSettings(converse=Converse(rows=1, turns=2, personas=["a driver"], temperature=0.1), local=LOCAL)
    assert home.run(ConverseRows, settings, {**writer, "user": writer["model"]})["written"] == 1
    assert {path.name for path in (home.folder / "work").iterdir()} == {"replies", "user"}
