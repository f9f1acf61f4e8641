"""Checks of whole sets of rows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.data.check import Screen, answered, check_labels, task_for
from slmops.errors import BadInput
from slmops.recipe.task import ClassificationTask
from slmops.tasks import Classification, Extraction

COLOURS = Classification(("red", "blue"), None, 8)
TICKETS = Extraction(
    {
        "type": "object",
        "properties": {"intent": {"enum": ["status", "other"]}, "order": {"type": "string"}},
        "required": ["intent"],
        "additionalProperties": False,
    },
    "intent",
    None,
    32,
)


def rows(*texts: str, answer: Any = "red") -> list[dict[str, Any]]:
    return [{"id": str(i), "input": text, "output": answer} for i, text in enumerate(texts)]


def placed(*answers: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(f"x.jsonl:{i}", {"id": str(i), "input": f"text {i}", "output": a}) for i, a in enumerate(answers, 1)]


def test_an_answer_given_as_text_is_read() -> None:
    (row,) = answered(placed('{"intent": "status", "order": "7"}'), TICKETS)
    assert row["output"] == {"intent": "status", "order": "7"}
    assert [row["output"] for row in answered(placed(" Red ", "blue"), COLOURS)] == ["red", "blue"]


def test_all_refused_answers_are_listed_with_their_places() -> None:
    good: dict[str, Any] = {"intent": "status"}
    with pytest.raises(BadInput) as error:
        answered(placed(good, {"intent": "refund"}, "{", {"order": "7"}, 5, {**good, "colour": "red"}), TICKETS)
    said = str(error.value).splitlines()[1:]
    assert [line.partition(": ")[0] for line in said] == [f"x.jsonl:{i}" for i in (2, 3, 4, 5, 6)]
    assert "intent: 'refund' is not one of" in said[0]
    assert "not JSON" in said[1]
    assert "'intent' is a required property" in said[2]
    assert "5 is not of type 'object'" in said[3]
    assert "'colour' was unexpected" in said[4]


def test_a_long_list_of_refused_answers_is_cut() -> None:
    with pytest.raises(BadInput) as error:
        answered(placed(*["green"] * 25), COLOURS)
    assert str(error.value).splitlines()[-1] == "and 15 more"


def test_labels_come_from_the_training_rows() -> None:
    settings = ClassificationTask()
    assert task_for(settings, None, placed("b", " a ", "b")) == Classification(("a", "b"), None, 24)
    given_labels = ClassificationTask(labels=["x", "y"])
    assert task_for(given_labels, None, placed("b")) == Classification(("x", "y"), None, 24)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (["a", "a"], "every training row has the label 'a'"),
        (["a", {"label": "b"}], "x.jsonl:2: the label is {'label': 'b'}; it must be a text"),
        (["a", 3], "x.jsonl:2: the label is 3"),
        (["a", "A", "b"], "is like"),
        (["a", " "], "a label is empty"),
    ],
)
def test_labels_that_are_no_set_are_refused(answers: list[Any], message: str) -> None:
    with pytest.raises(BadInput) as error:
        task_for(ClassificationTask(), None, placed(*answers))
    assert message in str(error.value)


def test_labels_of_test_that_training_never_saw_are_listed() -> None:
    task = Classification(("a", "b", "c", "d"), None, 8)
    train = rows("x", answer="a") + rows("y", answer="b")
    check_labels(train, rows("z", answer="b"), task)
    with pytest.raises(BadInput, match="never saw: c, d"):
        check_labels(train, rows("z", answer="d") + rows("z", answer="c") + rows("z", answer="a"), task)


def test_one_class_and_nothing_left_are_refused() -> None:
    with pytest.raises(BadInput, match="every training row has the label 'red'"):
        check_labels(rows("x", "y"), rows("z"), COLOURS)
    with pytest.raises(BadInput, match="no training row is left"):
        check_labels([], rows("z"), COLOURS)


def test_a_task_without_a_label_has_no_classes_to_check() -> None:
    task = Extraction(TICKETS.schema, None, None, 32)
    check_labels(rows("x", answer={"intent": "other"}), rows("y", answer={"intent": "status"}), task)


def test_rows_seen_before_are_dropped_with_the_reason() -> None:
    screen = Screen()
    screen.remember(rows("Where is it?", "where is it?"), "test")
    train = screen.sift(rows("where  IS it?", "new", "new "), "train")
    assert [row["input"] for row in train] == ["new"]
    pool = screen.sift(rows("NEW", "Where is it?", "café", "cafe\u0301", "other"), "pool")
    assert [row["input"] for row in pool] == ["café", "other"]
    told = [(row["side"], row["id"], row["reason"], row["detail"], row["like"]) for row in screen.dropped]
    assert told == [
        ("train", "0", "contaminated", "also in test", "0"),
        ("train", "2", "exact duplicate", "repeats an earlier row", "1"),
        ("pool", "0", "exact duplicate", "also in train", "1"),
        ("pool", "1", "contaminated", "also in test", "0"),
        ("pool", "3", "exact duplicate", "repeats an earlier row", "2"),
    ]
    assert {row["stage"] for row in screen.dropped} == {"data"}


TEXTS = st.lists(st.text("abA ", max_size=3), max_size=20)


@given(TEXTS, TEXTS)
def test_a_screen_loses_nothing_and_lets_nothing_through_twice(test: list[str], train: list[str]) -> None:
    def same(text: str) -> str:
        return " ".join(text.casefold().split())

    screen = Screen()
    screen.remember(rows(*test), "test")
    kept = list(screen.sift(rows(*train), "train"))
    assert len(kept) + len(screen.dropped) == len(train)
    folded = [same(row["input"]) for row in kept]
    assert len(set(folded)) == len(folded)
    assert set(folded) == set(map(same, train)) - set(map(same, test))
