"""Every kind of task has its own words for a teacher that writes texts, and knows which texts it can use."""

from __future__ import annotations

import json

import pytest

from slmops.recipe.writing import Write
from slmops.tasks import KINDS, Classification, Nli, ParseFailure, from_description, input_reader
from slmops.teach.kinds import WRITING, text_of
from slmops.teach.write import ask_for
from tests.tiny_task import TASK

LABELS = ["refund", "thanks"]
TASKS = {
    kind: TASK
    if kind == "extraction"
    else from_description(
        {"kind": kind, "instruction": "Be brief.", "max_answer_tokens": 8}
        | ({"labels": LABELS} if issubclass(of, Classification) else {})
    )
    for kind, of in KINDS.items()
}
TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}, {"role": "user", "content": "bye"}]
INPUTS = {
    "extraction": "Where is order 4711?",
    "classification": "I want my money",
    "nli": {"premise": "It rains.\nA lot.", "hypothesis": "It is wet."},
    "qa": {"context": "Berlin is in Germany.", "question": "Where is Berlin?"},
    "maths": "Two and 3 apples?",
    "summarisation": "A long text. With two sentences.",
    "generation": "Write a poem about rain.",
    "conversation": TALK,
}
OUTPUTS = {"extraction": {"intent": "refund"}, "classification": "refund", "nli": "thanks", "maths": 5}
BAD = {
    "extraction": '{"intent":"refund"}',
    "classification": "Refund",
    "nli": "It rains.",
    "qa": {"context": "Berlin is in Germany."},
    "maths": "What is 2 + 3?\n#### 5",
    "summarisation": {"summary": "x"},
    "generation": "  ",
    "conversation": [{"role": "assistant", "content": "hi"}],
}


def test_no_kind_is_left_out():
    assert WRITING.keys() == KINDS.keys() == INPUTS.keys() == BAD.keys() == TASKS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_is_shown_as_it_is_to_be_written_and_read_back(kind):
    text = input_reader(kind)(INPUTS[kind])
    shown = WRITING[kind].show(text)
    assert shown == INPUTS[kind]
    assert text_of(json.loads(json.dumps(shown)), TASKS[kind]) == text
    assert text_of({"text": shown, "label": "any"}, TASKS[kind]) == text, "as some teachers wrap it"


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_that_cannot_be_asked_about_is_none(kind):
    for bad in (BAD[kind], "", " \n", None, 7, []):
        assert isinstance(text_of(bad, TASKS[kind]), ParseFailure), bad


@pytest.mark.parametrize("by", ["new", "paraphrase", "harder", "easier"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_request_says_what_is_wanted(kind, by):
    task = TASKS[kind]
    row = {"id": "r", "input": input_reader(kind)(INPUTS[kind]), "output": OUTPUTS.get(kind, "an answer")}
    label = task.label(row["output"])
    (message,) = ask_for(task, Write(rows=9, by=by, texts=3), [row], label)
    told = message["content"]
    assert json.dumps(INPUTS[kind], ensure_ascii=False) in told
    assert f"Write a JSON array of 3 {WRITING[kind].item}." in told
    assert WRITING[kind].about in told
    assert (getattr(WRITING[kind], by) in told) if by in ("harder", "easier") else f"{3} " in told
    assert ("label of each text" in told) == (label is not None)
    assert ("Be brief." in told) == (kind != "extraction")
    if kind not in OUTPUTS:
        assert "an answer" not in told.replace("an answer of", ""), "answers of labels alone are shown"
    assert len({ask_for(task, Write(rows=9, by=how, texts=3), [row], None)[0]["content"] for how in ("new", by)}) == (
        1 if by == "new" else 2
    )


def test_what_is_said_of_a_kind_is_its_own():
    assert len({kind.about for kind in WRITING.values()}) == len(WRITING)
    assert len({kind.harder for kind in WRITING.values()}) == len(WRITING)
    assert len({kind.easier for kind in WRITING.values()}) == len(WRITING)


def test_labels_and_fields_are_told():
    row = {"id": "r", "input": "Premise: a\nHypothesis: b", "output": "yes"}
    told = ask_for(Nli(("yes", "no"), None, 8), Write(rows=1), [row], None)[0]["content"]
    assert "The labels are: yes, no." in told
    assert "(label: yes)" in told
    row = {"id": "r", "input": "a", "output": {"intent": "refund"}}
    assert "The fields are: intent, order, amount, name." in ask_for(TASK, Write(rows=1), [row], None)[0]["content"]
