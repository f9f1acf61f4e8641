"""What a recipe may ask a teacher to write, and what goes with which task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slmops.errors import BadInput
from slmops.recipe import Recipe, parse_recipe

GUEST = {"kind": "endpoint", "name": "guest", "base_url": "https://guest.example/v1", "model": "g"}
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
        ("conversation", {"converse": PERSONAS | {"user": {"model": "wheel:other"}}}),
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
        (
            "conversation",
            {"converse": PERSONAS | {"user": GUEST}},
            "`guest` is behind an endpoint and the teacher `local`",
        ),
        ("conversation", {"converse": PERSONAS | {"user": {"model": "wheel:a", "fit": {}}}}, "it plays as it is"),
        (
            "conversation",
            {"converse": PERSONAS | {"user": GUEST | {"system": "Be"}}},
            "`converse.personas` say who it is",
        ),
        ("conversation", {"converse": PERSONAS | {"user": GUEST | {"top_p": 0.5}}}, "`converse.top_p` is for both"),
    ],
)
def test_what_does_not_is_told(kind, teach, problem):
    with pytest.raises(BadInput) as error:
        recipe(kind, **teach)
    assert problem in str(error.value)


def to_an_endpoint(user: dict[str, Any], **given: Any) -> Recipe:
    price = {"input_usd": 1.0, "output_usd": 2.0}
    big = {"kind": "endpoint", "name": "big", "base_url": "https://big.example/v1", "model": "b", "price": price}
    talks = {"name": "a", "task": {"kind": "conversation"}, "data": {"sample": {}}, "teachers": [big]}
    teach = {"converse": {**PERSONAS, "user": user}} | given.pop("teach", {})
    return parse_recipe({**talks, "student": {"model": "wheel:none"}, "teach": teach, **given}, folder=Path.cwd())


def test_a_user_behind_an_endpoint_is_bound_by_budget_and_egress():
    read = to_an_endpoint(GUEST)
    assert parse_recipe(read.resolved(), folder="/nowhere") == read
    with pytest.raises(BadInput, match=r"needs the `price` of `teach\.converse\.user` too"):
        to_an_endpoint(GUEST, teach={"budget": {"usd": 3.0}})
    near = {"kind": "endpoint", "name": "big", "base_url": "http://localhost:1/v1", "model": "b"}
    with pytest.raises(
        BadInput, match=r"`teach\.converse\.user` is at guest\.example, and `privacy\.egress: local-only`"
    ):
        to_an_endpoint(GUEST, teachers=[near], privacy={"egress": "local-only"})


def test_a_user_that_runs_here_is_not_fitted_and_its_folder_is_not_told(tmp_path):
    user = to_an_endpoint({"model": str(tmp_path)}).user
    assert (user.kind, user.fit) == ("transformers", None)
    shared = to_an_endpoint({"model": str(tmp_path)}).shareable()
    assert shared["teach"]["converse"]["user"]["model"] == tmp_path.name
