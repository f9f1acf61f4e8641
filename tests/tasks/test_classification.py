"""Classification: one label out of a closed set."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from slmops.errors import BadInput
from slmops.tasks import Classification, ParseFailure, from_description, metrics

LABELS = ("late parcel", "Refund", "other")
TASK = Classification(LABELS, None, 8)


@given(st.sampled_from(LABELS))
def test_what_is_written_is_read_again(label: str) -> None:
    assert TASK.parse(TASK.write(label)) == label
    assert TASK.label(label) == label
    assert TASK.check(label) is None


@pytest.mark.parametrize("text", ["refund", " REFUND \n", "Refund"])
def test_case_and_outer_spaces_do_not_count(text: str) -> None:
    assert TASK.parse(text) == "Refund"


@pytest.mark.parametrize("text", ["", "refunds", "Refund.", "late  parcel", "Refund other"])
def test_anything_else_is_a_failure(text: str) -> None:
    failure = TASK.parse(text)
    assert isinstance(failure, ParseFailure)
    assert not failure.readable
    assert TASK.judge("Refund", failure) == {"exact_match": 0, "valid_label": 0, "fn:Refund": 1, "fn": 1}


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from((*LABELS, "nonsense"))), min_size=1))
def test_figures_are_those_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    figures = metrics(TASK, [TASK.judge(reference, TASK.parse(text)) for reference, text in pairs])
    references, texts = zip(*pairs, strict=True)
    occurring = [label for label in LABELS if label in references or label in texts]
    expected = f1_score(references, texts, labels=occurring, average="macro", zero_division=0.0)
    assert figures["macro_f1"] == pytest.approx(expected)
    micro = f1_score(references, texts, labels=occurring, average="micro", zero_division=0.0)
    assert figures["micro_f1"] == pytest.approx(micro) or "nonsense" in texts
    assert figures["accuracy"] == figures["exact_match"] == sum(a == b for a, b in pairs) / len(pairs)
    assert figures["valid_label"] == sum(text in LABELS for text in texts) / len(pairs)
    assert next(iter(figures)) == "exact_match"


def test_no_rows_are_no_evidence() -> None:
    with pytest.raises(BadInput, match="no rows"):
        metrics(TASK, [])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ((), "at least two labels"),
        (("a",), "at least two labels"),
        (("a", " "), "a label is empty"),
        (("a", "A"), "'a' is like 'A'"),
        (("a", "a"), "given twice"),
    ],
)
def test_labels_must_be_a_set(labels: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Classification(labels, None, 8)


@pytest.mark.parametrize("answer", ["green", None, 3, ["other"], {"label": "other"}])
def test_what_cannot_be_a_reference_answer(answer: Any) -> None:
    assert TASK.check(answer)


def test_a_description_makes_the_same_task() -> None:
    task = Classification(LABELS, "Say the topic.", 8)
    assert from_description(json.loads(json.dumps(task.describe()))) == task


def test_the_floor_learns_words() -> None:
    texts = {"Refund": "i want my money back {}", "late parcel": "where is the parcel {}", "other": "good {} morning"}
    train = [
        {"id": f"{label}{number}", "input": text.format(number), "output": label}
        for label, text in texts.items()
        for number in range(5)
    ]
    assert TASK.floor(train, ["give my money back", "parcel where?", "morning"]) == ["Refund", "late parcel", "other"]
