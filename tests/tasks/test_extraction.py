"""Extraction: canonical text, strict reading, and figures that tell one failure from another."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.errors import BadInput
from slmops.tasks import Extraction, ParseFailure, from_description, metrics

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "intent": {"enum": ["refund", "status", "other"]},
        "order": {"type": "string"},
        "amount": {"type": ["number", "null"]},
        "parcels": {"type": "integer"},
        "urgent": {"type": "boolean"},
        "note": {"type": ["string", "null"]},
    },
    "required": ["intent"],
    "additionalProperties": False,
}
TASK = Extraction(SCHEMA, "intent", None, 64)
ANSWERS = st.fixed_dictionaries(
    {"intent": st.sampled_from(["refund", "status", "other"])},
    optional={
        "note": st.none() | st.text(),
        "urgent": st.booleans(),
        "parcels": st.integers(),
        "amount": st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
        "order": st.text(),
    },
)


@given(ANSWERS)
def test_what_is_written_is_read_again(answer: dict[str, Any]) -> None:
    text = TASK.write(answer)
    assert TASK.parse(text) == answer
    assert TASK.check(answer) is None
    assert list(json.loads(text)) == [name for name in SCHEMA["properties"] if name in answer]
    judged = TASK.judge(answer, TASK.parse(text))
    assert judged["exact_match"] == judged["label_correct"] == judged["valid_json"] == judged["valid_schema"] == 1
    assert judged["field_fp"] == judged["field_fn"] == 0


def test_canonical_text_is_compact_and_keeps_every_script() -> None:
    answer = {"order": "BL 7", "intent": "refund", "note": "5 € für Zoë 🙂"}
    assert TASK.write(answer) == '{"intent":"refund","order":"BL 7","note":"5 € für Zoë 🙂"}'


def test_the_request_is_the_text_after_the_instruction() -> None:
    assert TASK.render("hi") == [{"role": "user", "content": "hi"}]
    asked = Extraction(SCHEMA, "intent", "Read the ticket.", 64).render("hi")
    assert asked == [{"role": "system", "content": "Read the ticket."}, {"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("text", "readable"),
    [
        ("", False),
        ("refund", False),
        ('{"intent":"refund"', False),
        ('{"intent":"refund"} and more', False),
        ('{"intent":"refund","intent":"status"}', False),
        ('{"intent":"refund","amount":NaN}', False),
        ('{"intent":"refund","amount":1e999}', False),
        ('```json\n{"intent":"refund"}\n```', False),
        ("[]", True),
        ("{}", True),
        ('{"intent":"complaint"}', True),
        ('{"intent":"refund","order":7}', True),
        ('{"intent":"refund","order":null}', True),
        ('{"intent":"refund","parcels":1.5}', True),
        ('{"intent":"refund","parcels":true}', True),
        ('{"intent":"refund","colour":"red"}', True),
    ],
)
def test_unreadable_and_unlawful_answers_are_told_apart(text: str, readable: bool) -> None:
    failure = TASK.parse(text)
    assert isinstance(failure, ParseFailure)
    assert failure.readable is readable
    assert failure.reason
    judged = TASK.judge({"intent": "refund", "order": "7"}, failure)
    assert (judged["valid_json"], judged["valid_schema"]) == (readable, 0)
    assert (judged["exact_match"], judged["label_correct"]) == (0, 0)
    assert (judged["field_tp"], judged["field_fp"], judged["field_fn"]) == (0, 0, 1)


def test_space_around_the_object_is_tolerated() -> None:
    assert TASK.parse(' \n{ "intent" : "refund" }\t') == {"intent": "refund"}


@pytest.mark.parametrize(
    ("reference", "answer", "figures"),
    [
        ({"order": "7"}, {"order": "7"}, (1, 1, 0, 0)),
        ({"order": "7"}, {"order": "8"}, (0, 0, 1, 1)),
        ({"order": "7"}, {}, (0, 0, 0, 1)),
        ({}, {"order": "7"}, (0, 0, 1, 0)),
        ({"order": "a  b"}, {"order": " a b "}, (1, 1, 0, 0)),
        ({"order": "caf\u00e9"}, {"order": "cafe\u0301"}, (1, 1, 0, 0)),
        ({"order": "A"}, {"order": "a"}, (0, 0, 1, 1)),
        ({"amount": 5}, {"amount": 5.0}, (1, 1, 0, 0)),
        ({"amount": 5.5}, {"amount": 5.51}, (0, 0, 1, 1)),
        ({"amount": None}, {}, (1, 0, 0, 0)),
        ({}, {"note": None}, (1, 0, 0, 0)),
        ({"urgent": True, "parcels": 1}, {"urgent": False, "parcels": 1}, (0, 1, 1, 1)),
    ],
)
def test_fields_are_judged_by_value(reference: Any, answer: Any, figures: tuple[int, ...]) -> None:
    judged = TASK.judge({"intent": "other", **reference}, {"intent": "other", **answer})
    assert tuple(judged[name] for name in ("exact_match", "field_tp", "field_fp", "field_fn")) == figures
    assert judged["label_correct"] == 1


def test_metrics_by_hand() -> None:
    reference = {"intent": "refund", "order": "7", "amount": 5}
    answers = [
        reference,
        {"intent": "status", "order": "7", "amount": 5},
        {"intent": "refund", "order": "8"},
        TASK.parse('{"intent":"refund","order":7}'),
        TASK.parse("{"),
    ]
    figures = metrics(TASK, [TASK.judge(reference, answer) for answer in answers])
    assert next(iter(figures)) == "exact_match"
    hits, invented, missed = 4, 1, 1 + 1 + 2 + 2
    assert figures == pytest.approx(
        {
            "exact_match": 1 / 5,
            "intent_accuracy": 2 / 5,
            "field_f1": 2 * hits / (2 * hits + invented + missed),
            "field_precision": hits / (hits + invented),
            "field_recall": hits / (hits + missed),
            "valid_json": 4 / 5,
            "valid_schema": 3 / 5,
        }
    )


def test_figures_that_no_row_speaks_to_are_left_out() -> None:
    bare = metrics(TASK, [TASK.judge({"intent": "other"}, {"intent": "other"})])
    assert set(bare) == {"exact_match", "intent_accuracy", "valid_json", "valid_schema"}
    unlabelled = Extraction(SCHEMA, None, None, 64)
    assert "intent" in unlabelled.fields
    figures = metrics(unlabelled, [unlabelled.judge({"intent": "other"}, {"intent": "status"})])
    assert "intent_accuracy" not in figures
    assert figures["field_f1"] == 0
    with pytest.raises(BadInput, match="no rows"):
        metrics(TASK, [])


@given(st.lists(st.tuples(ANSWERS, ANSWERS), min_size=1, max_size=8))
def test_every_metric_is_a_share(pairs: list[tuple[Any, Any]]) -> None:
    figures = metrics(TASK, [TASK.judge(reference, answer) for reference, answer in pairs])
    assert all(0 <= value <= 1 for value in figures.values())


def test_the_label() -> None:
    assert TASK.label({"intent": "refund", "order": "7"}) == "refund"
    assert Extraction(SCHEMA, None, None, 64).label({"intent": "refund"}) is None


@pytest.mark.parametrize("label", ["colour", "amount", "parcels", "urgent"])
def test_a_label_must_be_a_text_property(label: str) -> None:
    with pytest.raises(BadInput, match=f"task.label is `{label}`"):
        Extraction(SCHEMA, label, None, 64)


@pytest.mark.parametrize("answer", [{"intent": "refund", "amount": float("nan")}, {"intent": "x"}, "refund", None])
def test_what_cannot_be_a_reference_answer(answer: Any) -> None:
    assert TASK.check(answer)


def test_a_description_makes_the_same_task() -> None:
    task = Extraction(SCHEMA, "intent", "Read.", 64)
    assert from_description(json.loads(json.dumps(task.describe()))) == task
