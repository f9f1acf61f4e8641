"""Tasks from recipes and from bundles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slmops.errors import BadInput
from slmops.recipe.task import ClassificationTask, ExtractionTask
from slmops.tasks import Classification, Extraction, from_description, make_task

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"intent": {"enum": ["a", "b"]}},
    "additionalProperties": False,
}


def test_an_extraction_reads_its_schema(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    settings = ExtractionTask.model_validate({"schema": path, "instruction": "Read."})
    task = make_task(settings)
    assert task == make_task(settings, SCHEMA) == Extraction(SCHEMA, "intent", "Read.", 96)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not JSON"),
        (b'{"type": "object", "type": "object"}', "given twice"),
        (b"[]", "must hold a JSON object"),
        (b"\xff", "utf-8"),
        (b" " * 1_000_001, "larger than"),
        (None, "No such file"),
    ],
)
def test_a_schema_file_that_is_none_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "schema.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput) as error:
        make_task(ExtractionTask.model_validate({"schema": path}))
    assert f"task.schema: {path}: " in str(error.value)
    assert message in str(error.value)


def test_a_classification_needs_labels() -> None:
    assert make_task(ClassificationTask(labels=["a", "b"])) == Classification(("a", "b"), None, 24)
    with pytest.raises(BadInput, match=r"task\.labels is missing"):
        make_task(ClassificationTask())


GOOD: dict[str, Any] = {"kind": "classification", "labels": ["a", "b"], "instruction": None, "max_answer_tokens": 8}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "poetry"}, "a task of kind 'poetry' is not known"),
        ({"kind": None}, "a task of kind None is not known"),
        ({"kind": ["classification"]}, "is not known"),
        ({"code": "import os"}, "code is not known"),
        ({"labels": "ab"}, "labels: "),
        ({"labels": ["a", 1]}, "labels.1: "),
        ({"labels": ["a"]}, "at least two labels"),
        ({"max_answer_tokens": 0}, "max_answer_tokens: "),
        ({"instruction": 5}, "instruction: "),
        ({"kind": "extraction"}, "label_property is missing"),
    ],
)
def test_a_description_that_is_none_is_refused(change: dict[str, Any], message: str) -> None:
    assert from_description(GOOD)
    with pytest.raises(BadInput) as error:
        from_description({**GOOD, **change})
    assert message in str(error.value)
