"""A teacher on another machine sees placeholders; what is learned from it has the values."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from slmops.data.read import read_jsonl, write_jsonl
from slmops.endpoints import retry
from slmops.errors import BadInput, SlmopsError
from slmops.models.tokenizer import end_of_answer
from slmops.pipeline.keys import address
from slmops.pipeline.stage import Context, Node
from slmops.privacy.audit import EGRESS, read_log
from slmops.recipe.privacy import PrivacySettings
from slmops.recipe.teachers import EndpointTeacher
from slmops.recipe.teaching import Budget
from slmops.tasks import Extraction
from slmops.teach.answers import load_answers
from slmops.teach.stage_endpoint import EndpointAsking, TeachByEndpoint
from tests.endpoints.teacher_server import Act, TeacherServer
from tests.privacy.canaries import CANARIES

REMOTE = PrivacySettings(loopback="remote", patterns={"odd": r'"[a-z]+"\\'})
TASK = Extraction(
    {
        "type": "object",
        "properties": {
            "mail": {"type": "string", "pattern": "^[^@ ]+@[^@ ]+$"},
            "note": {"type": "string"},
        },
        "additionalProperties": False,
    },
    None,
    None,
    60,
)


class Room:
    """A home in which the stage runs."""

    def __init__(self, folder: Path, tokenizer: Any) -> None:
        self.folder, self.tokenizer = folder, tokenizer
        (folder / "data").mkdir()
        tokenizer.save(folder / "base" / "model")
        (folder / "data" / "task.json").write_text(json.dumps(TASK.describe()))
        self.said: list[str] = []

    def __call__(self, url: str, texts: list[str], privacy: PrivacySettings = REMOTE, **teacher: Any) -> dict[str, Any]:
        from slmops.console import Lines

        rows = ({"id": f"p{i}", "input": text} for i, text in enumerate(texts))
        write_jsonl(self.folder / "data" / "pool.jsonl", rows)
        out = self.folder / "out"
        out.mkdir(exist_ok=True)
        context = Context(out, self.folder / "work", 7, self.folder / "kept", Lines(self.said.append))
        inputs = {"data": self.folder / "data", "model": self.folder / "base"}
        return dict(TeachByEndpoint().run(inputs, asking(url, privacy, **teacher), context))

    @property
    def answers(self):
        return load_answers(self.folder / "out")

    @property
    def dropped(self):
        return read_jsonl(self.folder / "out" / "dropped.jsonl")

    @property
    def ledger(self) -> str:
        with sqlite3.connect(self.folder / "kept" / "endpoints.db") as db:
            return json.dumps(db.execute("SELECT * FROM answers").fetchall())


def asking(url: str, privacy: PrivacySettings = REMOTE, **teacher: Any) -> EndpointAsking:
    given = {"kind": "endpoint", "name": "big", "base_url": url, "model": "toy", "concurrency": 2, "retries": 1}
    return EndpointAsking(teacher=EndpointTeacher(**given | teacher), budget=Budget(), privacy=privacy)


@pytest.fixture
def room(tmp_path, tiny_tokenizer, monkeypatch) -> Room:
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 0.01)
    return Room(tmp_path, tiny_tokenizer)


def told(answer: str):
    return lambda _number, _text: Act(text=answer)


def test_the_teacher_sees_placeholders_and_the_student_learns_the_values(room, tiny_tokenizer):
    text = f"I am {CANARIES['email']}, or {CANARIES['phone']}. Again: {CANARIES['email']}"
    with TeacherServer(told('{"mail":"[email_1]","note":"[PHONE_1]"}')) as server:
        figures = room(server.url, [text], system=f"Forward doubts to {CANARIES['email']}.")
    (request,) = server.requests
    assert [message["content"] for message in request["messages"]] == [
        "Forward doubts to [EMAIL_1].",
        "I am [EMAIL_1], or [PHONE_1]. Again: [EMAIL_1]",
    ]
    (answer,) = room.answers
    whole = json.dumps({"mail": CANARIES["email"], "note": CANARIES["phone"]}, separators=(",", ":"))
    assert (answer.input, answer.text) == (text, whole)
    assert answer.tokens.tolist() == [*tiny_tokenizer.encode(whole), end_of_answer(tiny_tokenizer)]
    assert figures["redacted"] == 2
    assert any("placeholders stand for what is taken out of the rows: 1 email, 1 phone" in line for line in room.said)


def test_rows_that_differ_in_what_is_taken_out_alone_are_one_question(room):
    with TeacherServer(told('{"mail":"[EMAIL_1]"}')) as server:
        room(server.url, ["I am a@x.example", "I am b@x.example", "I am c@x.example"])
    assert server.asked == {"I am [EMAIL_1]": 1}
    assert [json.loads(answer.text)["mail"] for answer in room.answers] == ["a@x.example", "b@x.example", "c@x.example"]


def test_a_value_is_escaped_where_the_answer_is_json(room):
    with TeacherServer(told('{"note":"[ODD_1]"}')) as server:
        room(server.url, ['he said "hello"\\ to me'])
    assert [TASK.parse(answer.text) for answer in room.answers] == [{"note": '"hello"\\'}]


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (Act(text='{"mail":"[EMAIL_7]"}'), "[EMAIL_7] stands for nothing that was taken out of the row"),
        (Act(text='{"mail":"[IP_1]"}'), "[IP_1] stands for nothing"),
        (Act(text='{"mail":"[EM', finish="length"), "in the middle of a placeholder"),
        (Act(text='{"mail":"[PHONE_1]"}'), "form of the task once the values are back|does not match|pattern|mail"),
        (Act(text="[EMAIL_1]"), "JSON"),
    ],
)
def test_an_answer_that_cannot_be_put_back_is_set_aside_and_says_nothing_of_the_value(room, act, reason):
    odd = f"odd {CANARIES['email']} {CANARIES['phone']}"
    with TeacherServer(lambda _n, text: act if "odd" in text else Act(text='{"note":"x"}')) as server:
        room(server.url, ["one", odd, "two"])
    (dropped,) = room.dropped
    assert dropped["id"] == "p1"
    assert any(part in dropped["reason"] for part in reason.split("|")), dropped["reason"]
    assert not [value for value in CANARIES.values() if value in json.dumps(dropped)]
    assert len(room.answers) == 2


def test_what_has_the_tasks_form_only_with_its_values_counts_when_the_first_answers_are_judged(room):
    """A placeholder is no address; twenty of them would end the run if they were judged as they came."""
    with TeacherServer(told('{"mail":"[EMAIL_1]"}')) as server:
        figures = room(server.url, [f"{word} of a{word}@x.example" for word in map("w{}".format, range(30))])
        assert (figures["rows"], figures["dropped"]) == (30, 0)
        again = room(server.url, [f"{word} of a{word}@x.example" for word in map("w{}".format, range(30))])
    assert again["rows"] == 30
    assert server.asked.total() == 30


def test_a_literal_placeholder_of_the_row_stands_for_itself(room):
    with TeacherServer(told('{"mail":"[EMAIL_2]","note":"[EMAIL_1]"}')) as server:
        room(server.url, ["[EMAIL_1] is what a@x.example wrote"])
    assert [json.loads(answer.text) for answer in room.answers] == [{"mail": "a@x.example", "note": "[EMAIL_1]"}]


def test_canaries_are_in_no_request_ledger_log_or_reason(room):
    texts = [f"{kind} as in {value} here" for kind, value in CANARIES.items()]

    def behave(_number: int, text: str) -> Act:
        return Act("status", status=400) if "card" in text else Act(text=json.dumps({"note": text}))

    with TeacherServer(behave) as server:
        room(server.url, texts)
    (room.folder / "out" / "answers.jsonl").unlink()
    written = [
        path for path in room.folder.rglob("*") if path.is_file() and path != room.folder / "data" / "pool.jsonl"
    ]
    everything = json.dumps([*server.requests, *room.said, *map(str, written)], ensure_ascii=False).encode()
    everything += b"".join(path.read_bytes() for path in written)
    assert not [value for value in CANARIES.values() if value.encode() in everything]
    assert {kind for kind in CANARIES if f"[{kind.upper()}_1]" in json.dumps(server.requests)} == set(CANARIES)
    lines, _ = read_log(room.folder / "kept" / EGRESS)
    assert len(lines) == server.asked.total() == len(CANARIES)
    assert sorted(kind for line in lines for kind in line["redacted"]) == sorted(CANARIES)
    assert {(line["who"], line["model"], line["host"]) for line in lines} == {
        ("teacher big", "toy", server.url.split("/")[2])
    }


def test_every_try_has_its_line_before_it_leaves(room):
    with TeacherServer(lambda n, _t: Act("status", status=500) if n == 1 else Act(text='{"note":"x"}')) as server:
        room(server.url, ["one"])
    assert len(read_log(room.folder / "kept" / EGRESS)[0]) == server.asked.total() == 2


def test_a_log_that_cannot_be_written_sends_and_costs_nothing(room):
    (room.folder / "kept" / EGRESS).mkdir(parents=True)
    with TeacherServer(told('{"note":"x"}')) as server, pytest.raises(SlmopsError, match="so nothing was sent"):
        room(server.url, ["one", "two"])
    assert server.asked.total() == 0
    with sqlite3.connect(room.folder / "kept" / "endpoints.db") as db:
        assert db.execute("SELECT SUM(pico), SUM(tokens) FROM charges").fetchone() == (0, 0)


def test_a_teacher_on_this_machine_sees_rows_as_they_are(room):
    with TeacherServer(told('{"note":"x"}')) as server:
        room(server.url, [f"I am {CANARIES['email']}"], PrivacySettings(egress="local-only"))
    assert server.asked == {f"I am {CANARIES['email']}": 1}
    assert not (room.folder / "kept" / EGRESS).exists()


def test_local_only_lets_nothing_leave(room):
    with TeacherServer(told('{"note":"x"}')) as server, pytest.raises(BadInput, match="lets no text leave"):
        room(server.url, ["one"], REMOTE.model_copy(update={"egress": "local-only"}))
    assert server.asked.total() == 0


def test_what_is_taken_out_makes_answers_anew_and_whether_it_may_leave_does_not():
    def key(**changed: Any) -> str:
        settings = PrivacySettings(**changed)
        return address([Node("teach", TeachByEndpoint, asking("http://a/v1", settings))], 7)[0].key

    assert key() == key(egress="local-only")
    assert len({key(), key(redact=["email"]), key(patterns={"a": "b"}), key(phone_regions=["FR"])}) == 4
