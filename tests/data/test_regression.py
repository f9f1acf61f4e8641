"""The regression suite: rows stay in it, and what contradicts them is named."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmops.data.regression import add_row, read_regression
from slmops.errors import BadInput
from slmops.tasks import Classification

TASK = Classification(("late", "refund"), None, 8)


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "regression.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(id: str, text: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "input": text, "output": "late", **more}


def test_rows_come_with_their_notes(tmp_path: Path) -> None:
    path = write(tmp_path, row("a", "where?", note="ticket 7"), row("b", "when?"))
    assert read_regression(path, "extraction") == [
        (f"{path}:1", {"id": "a", "input": "where?", "output": "late", "note": "ticket 7"}),
        (f"{path}:2", {"id": "b", "input": "when?", "output": "late"}),
    ]


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        (row("a", "when?"), ":2: id 'a' was given before, at "),
        (row("b", "WHERE? "), ":2: the same text as "),
        ({**row("b", "where?"), "output": "refund"}, ":2: the same text as "),
        ({"input": "when?", "output": "late"}, ":2: no `id`"),
        ({"id": "b", "input": "when?"}, ":2: no `output`"),
        ({"id": "b", "input": " ", "output": "late"}, ":2: `input` is empty"),
        (row("b", "when?", note=7), ":2: `note` is 7"),
    ],
)
def test_what_clashes_or_is_broken_is_named_with_file_and_line(tmp_path, second, problem):
    path = write(tmp_path, row("a", "where?"), second)
    with pytest.raises(BadInput) as error:
        read_regression(path, "extraction")
    assert f"{path}{problem}" in str(error.value)


def test_adding_keeps_what_was_there_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "regression.jsonl"
    before = '{"id": "a",   "input": "where?", "output": "late"}\n\n{"output":"late","input":"Zoë 🙂","id":7}'
    path.write_text(before)
    path.chmod(0o640)
    added = add_row(path, "when?", " Refund", TASK, note="ticket 9")
    assert added == {"id": added["id"], "input": "when?", "output": "refund", "note": "ticket 9"}
    assert path.read_text() == before + "\n" + json.dumps(added) + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [record["id"] for _, record in read_regression(path, "extraction")] == ["a", "7", added["id"]]
    assert sorted(os.listdir(tmp_path)) == ["regression.jsonl"]  # noqa: PTH208 - hidden files count too


@pytest.mark.parametrize(
    ("text", "answer", "given", "problem"),
    [
        ("WHERE?", "late", {}, ":1: the text is in the suite already"),
        ("when?", "late", {"id": "a"}, ":1: the id 'a' is taken"),
        ("when?", "sometime", {}, "the answer is none of this task: 'sometime' is not one of the labels"),
        (" \n", "late", {}, "the text is empty"),
    ],
)
def test_a_row_that_does_not_fit_changes_nothing(tmp_path, text, answer, given, problem):
    path = write(tmp_path, row("a", "where?"))
    before = path.read_bytes()
    with pytest.raises(BadInput) as error:
        add_row(path, text, answer, TASK, **given)
    assert problem in str(error.value)
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_a_suite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="JSONL file alone"):
        add_row(tmp_path / "regression.csv", "when?", "late", TASK)
    with pytest.raises(BadInput, match="cannot write to"):
        add_row(tmp_path / "nowhere" / "regression.jsonl", "when?", "late", TASK)
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"id": "a", "inp')
    with pytest.raises(BadInput, match=r"broken\.jsonl:1"):
        add_row(broken, "when?", "late", TASK)
    assert broken.read_text() == '{"id": "a", "inp'


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), max_size=6), st.text(st.characters(codec="utf-8")))
def test_every_text_that_is_added_is_there_ever_after(tmp_path_factory, texts, note):
    path = tmp_path_factory.mktemp("suite") / "regression.jsonl"
    added: list[str] = []
    for text in texts:
        try:
            add_row(path, text, "late", TASK, note=note)
        except BadInput:
            continue
        added.append(text)
        assert [record["input"] for _, record in read_regression(path, "extraction")] == added


def _add_many(path: Path, who: int) -> None:
    for i in range(10):
        add_row(path, f"message {who} {i}", "late", TASK)


def test_two_who_add_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "regression.jsonl"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_add_many, args=(path, who)) for who in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(read_regression(path, "extraction")) == 40


def test_an_input_may_have_the_parts_that_its_task_knows(tmp_path: Path) -> None:
    path = tmp_path / "suite.jsonl"
    row = {"id": "a", "input": {"question": "Who?", "context": "It was Ada."}, "output": "Ada"}
    path.write_text(json.dumps(row) + "\n")
    ((_, read),) = read_regression(path, "qa")
    assert "Who?" in read["input"]
    assert "Ada" in read["input"]
    with pytest.raises(BadInput, match="it must be a text"):
        read_regression(path, "extraction")
