"""A task with answers that can be judged by hand, and folders as `Score` leaves them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from slmops.data.read import write_jsonl
from slmops.tasks import Extraction, Row
from tests.tiny_task import TASK


@pytest.fixture(scope="session")
def task() -> Extraction:
    return TASK


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    """Forty messages, each of which asks for an order number."""
    return [
        {"id": f"t{i}", "input": f"where is {i}?", "output": {"intent": "order_late", "order": str(i)}}
        for i in range(40)
    ]


@pytest.fixture
def scored(tmp_path: Path, task: Extraction, rows: Sequence[Row]) -> Callable[..., Path]:
    """Writes what a model's measuring leaves, for a model that is right on the first `right` rows."""

    def write(role: str, right: int, *, wrong: str = '{"intent":"order_late","order":"?"}', **figures: Any) -> Path:
        folder = tmp_path / role
        folder.mkdir()
        texts = [task.write(row["output"]) if i < right else wrong for i, row in enumerate(rows)]
        write_jsonl(
            folder / "predictions.jsonl", ({"id": r["id"], "text": t} for r, t in zip(rows, texts, strict=True))
        )
        (folder / "probe.json").write_text(json.dumps(figures))
        return folder

    return write
