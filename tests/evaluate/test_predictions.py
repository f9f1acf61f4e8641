"""Answers that do not fit the rows, the task or each other are refused, and the message says what to do."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from slmops.data.read import write_jsonl
from slmops.errors import BadInput
from slmops.evaluate.predictions import check_rows, read_scored
from slmops.tasks import Classification, QuestionAnswering

TASK = Classification(("a", "b"), None, 4)
ROWS = [{"id": f"t{i}", "input": "x", "output": "ab"[i % 2]} for i in range(4)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "probe.json").write_text('{"engine": "toy"}')
    return tmp_path


def answers(folder: Path, **columns: list[Any]) -> Path:
    """Right answers with extra columns; None leaves one out."""
    rows = [{"id": row["id"], "text": row["output"]} for row in ROWS]
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row |= {} if value is None else {name: value}
    write_jsonl(folder / "predictions.jsonl", rows)
    return folder


def test_extra_columns_become_figures(folder: Path) -> None:
    sure = [{"a": 0.9, "b": 0.1}, {"a": 0.1, "b": 0.9}] * 2
    one = read_scored(TASK, ROWS, answers(folder, nll=[1.0, 2, 3, 4.0], tokens=[1, 1, 2, 1], probabilities=sure))
    values = {figure.name: figure.value(one.judged) for figure in one.figures}
    assert next(iter(values)) == "exact_match"
    assert values["perplexity"] == pytest.approx(math.exp(10 / 5))
    assert values["ece"] == pytest.approx(0.1)
    assert one.measured == {"engine": "toy"}


def test_without_them_there_are_the_figures_of_the_task(folder: Path) -> None:
    one = read_scored(TASK, ROWS, answers(folder))
    assert tuple(one.figures) == TASK.figures()
    assert one.confidence is None


def test_without_answers_there_is_only_what_was_measured(folder: Path) -> None:
    one = read_scored(TASK, ROWS, folder)
    assert (one.measured, list(one.judged)) == ({"engine": "toy"}, [])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"nll": [1, 1, None, 1], "tokens": [1] * 4}, "the answer to 't2' has no `nll`, and others have"),
        ({"nll": [1.0] * 4}, "the answer to 't0' has no `tokens`, and others have"),
        ({"nll": [1, -1, 1, 1], "tokens": [1] * 4}, "the answer to 't1' has nll -1 and tokens 1"),
        ({"nll": [1] * 4, "tokens": [1, 1, 1, 0]}, "the answer to 't3' has nll 1 and tokens 0"),
        ({"nll": ["x"] * 4, "tokens": [1] * 4}, "the answer to 't0' has nll 'x' and tokens 1"),
        ({"probabilities": [{"a": 1.0}, None, None, None]}, "the answer to 't1' has no `probabilities`"),
        ({"probabilities": [{"a": 2.0}] * 4}, "the answer to 't0' has `probabilities` that are none"),
        ({"text": ["a", "b", 5, "a"]}, "the answer to 't2' has no `text`"),
    ],
)
def test_columns_that_make_no_figure_name_the_row(folder: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as error:
        read_scored(TASK, ROWS, answers(folder, **columns))
    assert message in str(error.value)
    assert str(folder / "predictions.jsonl") in str(error.value)
    assert error.value.hint


def test_answers_of_another_number_or_to_other_rows_are_told_apart(folder: Path) -> None:
    answers(folder)
    with pytest.raises(BadInput, match="the 3 test rows one by one, in their order: it has 4 answers"):
        read_scored(TASK, ROWS[:3], folder)
    with pytest.raises(BadInput, match="answer 2 is to 't1', not 'u'"):
        read_scored(TASK, [ROWS[0], {**ROWS[1], "id": "u"}, *ROWS[2:]], folder)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "there are no test rows, so nothing is known of any model"),
        ([ROWS[0], {"id": "t9", "input": "x"}], "test row 't9': it has no reference answer"),
        ([{"id": "t9", "input": "x", "output": "c"}], "test row 't9': 'c' is not one of the labels"),
    ],
)
def test_rows_that_judge_nothing_are_refused(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        check_rows(TASK, rows)
    assert error.value.hint


def test_probabilities_do_not_fit_a_task_without_labels(folder: Path) -> None:
    with pytest.raises(BadInput, match="has no label"):
        read_scored(QuestionAnswering(None, 4), ROWS, answers(folder, probabilities=[{"a": 1.0}] * 4))
