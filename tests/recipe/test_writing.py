"""What a recipe may ask a teacher to write, and what goes with which task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slmops.errors import BadInput
from slmops.recipe import Recipe, parse_recipe

PERSONAS = {"rows": 4, "personas": ["a driver"]}


def recipe(kind: str = "classification", **teach: Any) -> Recipe:
    given = {"name": "a", "task": {"kind": kind}, "data": {"sample": {}}, "teachers": [{"model": "wheel:none"}]}
    return parse_recipe({**given, "teach": teach}, folder=Path.cwd())


@pytest.mark.parametrize(
    ("kind", "teach"),
    [
        ("classification", {"write": {"rows": 10}}),
        ("classification", {"write": {"rows": 10, "balance": True, "by": "harder"}}),
        ("nli", {"write": {"per_label": {"neutral": 3}}}),
        ("maths", {"reason": {}, "write": {"rows": 3, "by": "paraphrase"}}),
        ("conversation", {"converse": PERSONAS, "write": {"rows": 3}}),
    ],
)
def test_what_goes_together_is_taken(kind, teach):
    read = recipe(kind, **teach)
    assert parse_recipe(read.resolved(), folder="/nowhere") == read


@pytest.mark.parametrize(
    ("kind", "teach", "problem"),
    [
        ("classification", {"write": {}}, "give `rows`, or `per_label`, and not both"),
        ("classification", {"write": {"rows": 3, "per_label": {"a": 1}}}, "give `rows`, or `per_label`, and not both"),
        ("classification", {"write": {"per_label": {"a": 1}, "balance": True}}, "`balance` deals `rows` out"),
        ("classification", {"write": {"per_label": {"a": 0}}}, "it must be greater than or equal to 1"),
        ("classification", {"write": {"rows": 3, "by": "other"}}, "allowed: 'new', 'paraphrase', 'harder' or 'easier'"),
        ("classification", {"write": {"rows": 3, "temperature": 0.0}}, "it must be greater than 0"),
        ("classification", {"write": {"row": 3}}, "did you mean teach.write.rows?"),
        ("qa", {"write": {"rows": 3, "balance": True}}, "`teach.write.balance`: an answer of this task has no label"),
        ("maths", {"write": {"per_label": {"a": 1}}}, "`teach.write.per_label`: an answer of this task has no label"),
        ("classification", {"reason": {}}, "`teach.reason` is for `task.kind: maths`"),
        ("generation", {"converse": PERSONAS}, "`teach.converse` is for `task.kind: conversation`"),
        ("conversation", {"converse": {"rows": 4, "personas": []}}, "teach.converse.personas"),
        ("conversation", {"converse": PERSONAS | {"turns": 1}}, "teach.converse.turns is 1"),
    ],
)
def test_what_does_not_is_told(kind, teach, problem):
    with pytest.raises(BadInput) as error:
        recipe(kind, **teach)
    assert problem in str(error.value)
