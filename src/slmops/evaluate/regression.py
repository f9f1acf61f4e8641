"""What the shipped model answers to the rows that once failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slmops.data.read import read_jsonl
from slmops.errors import BadInput
from slmops.tasks import Row, Task


def answered_again(task: Task, rows: Sequence[Row], predictions: Path) -> list[dict[str, Any]]:
    """One result per row of the suite: `id`, `note`, `input`, `wanted`, `written` and `passed`.

    A row passes when its answer is the wanted one by the task's own comparison.

    Args:
        rows: of the suite.
        predictions: the file with one `{"id", "text"}` per row, in their order.

    Raises:
        BadInput: the predictions are not those of these rows.
    """
    texts = read_jsonl(predictions)
    if [text["id"] for text in texts] != [row["id"] for row in rows]:
        raise BadInput(f"{predictions} does not answer the {len(rows)} rows of the regression suite one by one")
    return [
        {
            "id": row["id"],
            "note": row.get("note"),
            "input": row["input"],
            "wanted": task.write(row["output"]),
            "written": text["text"],
            "passed": task.judge(row["output"], task.parse(text["text"]))["exact_match"] == 1,
        }
        for row, text in zip(rows, texts, strict=True)
    ]


def counted(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the evidence says of the suite: numbers and ids, no text, because it travels with the bundle."""
    failed = [result["id"] for result in results if not result["passed"]]
    return {"rows": len(results), "failures": len(failed), "failed": failed}
