"""What a teacher thinks aloud: told apart from its answer, dropped or learned, and bought once either way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from slmops.data.read import read_jsonl
from slmops.recipe.privacy import PrivacySettings
from slmops.recipe.teachers import EndpointTeacher
from slmops.recipe.writing import Draws
from slmops.tasks import Generation
from slmops.teach.answers import load_answers
from slmops.teach.asking import Remote, Request, Said
from slmops.teach.thinking import UNFINISHED, spoken
from tests.endpoints.teacher_server import Act, TeacherServer
from tests.teach.test_endpoint import ANSWER, Room

TEXTS = ["marked", "apart", "opened by the template", "without"]
SAID = {
    "marked": Act(text=f"<think>\nIt is broken. </think>\n\n{ANSWER}"),
    "apart": Act(text=ANSWER, reasoning="It is late."),
    "opened by the template": Act(text=f"It is old.\n</think>\n{ANSWER}"),
    "without": Act(text=ANSWER),
}


@pytest.fixture
def room(tmp_path, tiny_tokenizer) -> Room:
    return Room(tmp_path, tiny_tokenizer)


def record(text: str, finish: str = "stop", **more: Any) -> dict[str, Any]:
    return {"text": text, "finish": finish, "tokens": 3, **more}


@pytest.mark.parametrize(
    ("given", "stripped", "kept"),
    [
        (record("yes"), "yes", "yes"),
        (record("<think>a b</think>yes"), "yes", "<think>\na b\n</think>\n\nyes"),
        (record("\n<think>\na\n</think>\n\nyes"), "\n\nyes", "<think>\na\n</think>\n\nyes"),
        (record("a</think>yes"), "yes", "<think>\na\n</think>\n\nyes"),
        (record("yes", reasoning="a"), "yes", "<think>\na\n</think>\n\nyes"),
        (record("<think></think>yes </think>"), "yes </think>", "<think>\n\n</think>\n\nyes </think>"),
        # What is no thinking at the beginning is the answer's own.
        (record("say <think>a</think>"), "say <think>a</think>", "say <think>a</think>"),
    ],
)
def test_the_answer_is_what_stands_behind_the_thinking(given, stripped, kept):
    assert spoken(given, "strip") == {**given, "text": stripped}
    assert spoken(given, "keep")["text"] == kept


@pytest.mark.parametrize("given", [record("<think>a b"), record("", "length", reasoning="a b")])
def test_a_reply_may_end_inside_its_thinking(given):
    for reasoning in ("strip", "keep"):
        told = spoken(given, reasoning)
        assert (told["text"], told["finish"]) == ("", UNFINISHED)


def test_thinking_is_no_part_of_the_answer_unless_it_is_to_be_learned(room):
    with TeacherServer(lambda _n, text: SAID[text]) as server:
        figures = room(server.url, TEXTS, thinking_tokens=100)
        assert server.requests[0]["max_tokens"] == 160
        assert {answer.text for answer in load_answers(room.folder / "out")} == {ANSWER}
        assert (figures["rows"], figures["requests"]) == (4, 4)
        bought = server.asked.total()

        (room.data / "task.json").write_text(json.dumps(Generation(None, 160).describe()))
        figures = room(server.url, TEXTS, reasoning="keep")
        assert server.asked.total() == bought, "what was thought is kept, so nothing is bought anew"
    texts = {answer.input: answer.text for answer in load_answers(room.folder / "out")}
    assert texts["apart"] == f"<think>\nIt is late.\n</think>\n\n{ANSWER}"
    assert texts["without"] == ANSWER
    assert all(text.endswith(f"</think>\n\n{ANSWER}") for asked, text in texts.items() if asked != "without")


def test_an_answer_that_ends_inside_its_thinking_is_dropped(room):
    with TeacherServer(
        lambda _n, text: Act(text="<think>Well, ", finish="length") if text == "marked" else SAID[text]
    ) as server:
        room(server.url, TEXTS)
    (dropped,) = read_jsonl(room.folder / "out" / "dropped.jsonl")
    assert dropped["id"] == "p0"
    assert "it ends inside its thinking: 60 tokens were too few" in dropped["reason"]


def test_of_all_else_that_a_teacher_is_asked_nothing_thought_is_taken():
    teacher = EndpointTeacher(
        kind="endpoint", base_url="http://127.0.0.1:9/v1", model="toy", thinking_tokens=50, seed=3
    )
    request = Request([{"role": "user", "content": "hello"}], 16, draw=2)
    asked = Remote(teacher, PrivacySettings()).leaving(Draws(), request)
    assert (asked.max_tokens, asked.seeded) == (66, {"seed": 5})
    assert asked.said(record("<think>a</think>yes")) == Said("yes", whole=True)
    assert asked.said(record("<think>a")) == Said("", whole=False)
    learned = Remote(teacher, PrivacySettings(), "keep").leaving(Draws(), request)
    assert learned.said(record("<think>a</think>yes")) == Said("<think>\na\n</think>\n\nyes", whole=True)
