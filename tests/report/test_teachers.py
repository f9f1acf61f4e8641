"""Who taught, in words."""

from __future__ import annotations

import pytest

from slmops.report.teachers import answering, taught_by

LOCAL, FAR = ({"name": "local", "kind": "transformers"}, {"name": "far", "kind": "endpoint"})
WISE = {"name": "wise", "kind": "endpoint"}
JUDGED = {"combine": {"how": "judged", "judge": "wise"}}


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        (None, "the teacher"),
        ({"teachers": [FAR], "teach": {"combine": None}}, "the teacher"),
        ({"teachers": [FAR, WISE], "teach": JUDGED}, "the teacher, chosen by wise"),
        ({"teachers": [LOCAL, FAR]}, "2 teachers (local, far)"),
        (
            {"teachers": [LOCAL, LOCAL | {"name": "other"}, WISE], "teach": JUDGED},
            "2 teachers (local, other), chosen by wise; the teacher of every table is local",
        ),
    ],
)
def test_teachers_are_told_by_name_and_a_judge_for_itself(recipe, told):
    assert taught_by(recipe) == told


def test_a_judge_does_not_answer():
    assert answering({"teachers": [FAR, WISE], "teach": JUDGED}) == [FAR]
    assert answering({"teachers": [FAR, WISE]}) == [FAR, WISE]
