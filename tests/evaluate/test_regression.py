"""What failed once, asked again."""

from __future__ import annotations

import pytest

from slmops.data.read import write_jsonl
from slmops.errors import BadInput
from slmops.evaluate.regression import answered_again, counted


def test_a_row_passes_when_the_task_says_the_answer_is_right(task, tmp_path):
    rows = [
        {"id": "a", "input": "where is 1?", "output": {"intent": "order_late", "order": "1"}, "note": "ticket 7"},
        {"id": "b", "input": "where is 2?", "output": {"intent": "order_late", "order": "2"}},
        {"id": "c", "input": "where is 3?", "output": {"intent": "order_late", "order": "3"}},
    ]
    texts = ['{"order":"1", "intent":"order_late"}', '{"intent":"order_late"}', "no JSON"]
    predictions = tmp_path / "predictions.jsonl"
    write_jsonl(predictions, ({"id": row["id"], "text": text} for row, text in zip(rows, texts, strict=True)))
    results = answered_again(task, rows, predictions)
    assert [result["passed"] for result in results] == [True, False, False]
    assert results[0]["note"] == "ticket 7"
    assert results[1]["wanted"] == '{"intent":"order_late","order":" 2"}'
    assert results[2]["written"] == "no JSON"
    assert counted(results) == {"rows": 3, "failures": 2, "failed": ["b", "c"]}
    with pytest.raises(BadInput, match="does not answer the 2 rows"):
        answered_again(task, rows[:2], predictions)
