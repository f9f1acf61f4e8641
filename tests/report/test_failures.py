"""Worst classes, confusion, and rows beside the answers of every model."""

from __future__ import annotations

from slmops.report.failures import MAX_EXAMPLES, heat, most_confused, side_by_side, worst_classes
from slmops.tasks import Classification

TASK = Classification(("late", "refund", "other"), None, 8)


def rows(*wanted: str) -> list[dict[str, str]]:
    return [{"id": f"r{i}", "input": f"text {i}", "output": label} for i, label in enumerate(wanted)]


def test_rows_are_grouped_by_who_is_right():
    texts = {
        "teacher": ["late", "late", "nonsense", "other"],
        "shipped": ["late", "refund", "refund", "late"],
    }
    lost, hard, gained = side_by_side(
        TASK, rows("late", "late", "refund", "refund"), texts, figure="accuracy", subject="shipped", reference="teacher"
    )
    assert [e.id for e in lost.examples] == ["r1"]
    assert [e.id for e in hard.examples] == ["r3"]
    assert [e.id for e in gained.examples] == ["r2"]
    assert [(g.role, g.text, g.right) for g in lost.examples[0].given] == [
        ("teacher", "late", True),
        ("shipped", "refund", False),
    ]
    assert (lost.examples[0].input, lost.examples[0].wanted) == ("text 1", "late")


def test_a_group_counts_all_its_rows_and_shows_a_few():
    many = MAX_EXAMPLES + 3
    texts = {"gpt": ["late"] * many}
    (group,) = side_by_side(TASK, rows(*["other"] * many), texts, figure="accuracy", subject="gpt", reference=None)
    assert (group.rows, len(group.examples)) == (many, MAX_EXAMPLES)


def test_a_figure_with_shades_shows_its_lowest_rows():
    class Shaded(Classification):
        def judge(self, reference, answer):
            return {"rouge": {"late": 0.4, "refund": 0.1, "other": 0.9}[answer] * (reference == "late")}

    task = Shaded(("late", "refund", "other"), None, 8)
    texts = {"shipped": ["late", "refund", "other"], "teacher": ["other"] * 3}
    (group,) = side_by_side(
        task, rows("late", "late", "late"), texts, figure="rouge", subject="shipped", reference="teacher"
    )
    assert [e.given[1].score for e in group.examples] == [0.1, 0.4]


def test_a_very_long_answer_is_cut_and_says_so():
    (group,) = side_by_side(TASK, rows("late"), {"gpt": ["x" * 2000]}, figure="accuracy", subject="gpt", reference=None)
    assert group.examples[0].given[0].text.endswith("… (1,300 more characters)")


def test_the_worst_classes_come_first_with_the_reference_beside_them():
    def one(label: str, f1: float, support: int = 5) -> dict[str, object]:
        return {"label": label, "support": support, "precision": f1, "recall": f1, "f1": f1}

    model = {"classes": [one("a", 0.9), one("b", 0.2), one("never asked", 0.0, 0)]}
    found = worst_classes(model, {"classes": [one("b", 0.8)]})
    assert [(c["label"], c["reference_f1"]) for c in found] == [("b", 0.8), ("a", None)]
    assert worst_classes({}, None) == []


def test_confusion_with_and_without_a_column_for_no_answer():
    square = heat({"labels": ["a", "b"], "counts": [[3, 1], [0, 0]]})
    assert (square.columns, square.whole) == (("a", "b"), True)
    assert square.shades == ((0.75**0.5, 0.5), (0.0, 0.0))
    wide = heat({"labels": ["a", "b"], "counts": [[3, 1, 2], [0, 4, 0]]})
    assert wide.columns == ("a", "b", "no answer")
    assert wide.counts == ((3, 1, 2), (0, 4, 0))


def test_the_most_frequent_mistakes_leave_out_what_is_right():
    confusion = {"labels": ["a", "b"], "counts": [[9, 1, 2], [3, 8, 0]]}
    assert most_confused(confusion) == [(3, "b", "a"), (2, "a", "no answer"), (1, "a", "b")]
