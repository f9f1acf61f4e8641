"""The per-class table and the confusion matrix of scikit-learn, and answers that are no label."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from slmops.evaluate.label_tables import label_tables, labels_of
from slmops.tasks import Classification, Extraction, QuestionAnswering

LABELS = ("late", "other", "refund")
TASK = Classification(LABELS, None, 8)


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from((*LABELS, "?"))), min_size=1))
def test_tables_are_those_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    rows = [{"id": str(i), "input": "x", "output": wanted} for i, (wanted, _) in enumerate(pairs)]
    answers = [TASK.parse(text) for _, text in pairs]
    labels = labels_of(TASK, rows, [answers])
    told = label_tables(TASK, rows, answers, labels)
    wanted, given = zip(*pairs, strict=True)
    assert labels == sorted({*wanted, *given} - {"?"})
    matrix = confusion_matrix(wanted, given, labels=[*labels, "?"])[:-1]
    assert told["confusion"] == {"labels": labels, "counts": matrix.tolist()}
    scores = precision_recall_fscore_support(wanted, given, labels=labels, zero_division=0.0)
    for one, label, *expected in zip(told["classes"], labels, *scores, strict=True):
        assert one["label"] == label
        assert [one[name] for name in ("precision", "recall", "f1", "support")] == pytest.approx(expected)


def test_labels_of_any_model_have_their_place() -> None:
    rows = [{"id": "1", "input": "x", "output": "late"}]
    assert labels_of(TASK, rows, [["late"], ["refund"]]) == ["late", "refund"]
    assert label_tables(TASK, rows, ["late"], ["late", "refund"])["confusion"]["counts"] == [[1, 0, 0], [0, 0, 0]]


def test_a_property_that_is_a_class_has_its_tables_too() -> None:
    schema = {
        "type": "object",
        "properties": {"intent": {"enum": ["a", "b"]}, "order": {"type": "string"}},
        "additionalProperties": False,
    }
    task = Extraction(schema, "intent", None, 8)
    rows = [{"id": str(i), "input": "x", "output": answer} for i, answer in enumerate([{"intent": "a"}, {}, {}])]
    answers = [{"intent": "b", "order": "1"}, {"intent": "a"}, task.parse("{")]
    told = label_tables(task, rows, answers, labels_of(task, rows, [answers]))
    # A reference without an intent is no row of the matrix.
    assert told["confusion"] == {"labels": ["a", "b"], "counts": [[0, 1, 0], [0, 0, 0]]}


def test_a_task_without_labels_has_no_tables() -> None:
    rows = [{"id": "1", "input": "x", "output": "text"}]
    assert labels_of(QuestionAnswering(None, 8), rows, [["text"]]) == []
