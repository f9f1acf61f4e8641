"""The kinds of task: how to ask, how to read the answer, how to judge it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from slmops.errors import BadInput
from slmops.recipe.models import ClassificationTask, ExtractionTask
from slmops.tasks import strict_json
from slmops.tasks.base import Message, ParseFailure, Row, Task
from slmops.tasks.classification import Classification
from slmops.tasks.extraction import Extraction

__all__ = [
    "Classification",
    "Extraction",
    "Message",
    "ParseFailure",
    "Row",
    "Task",
    "from_description",
    "make_task",
    "read_schema",
]

_MAX_SCHEMA_BYTES = 1_000_000


def make_task(settings: ExtractionTask | ClassificationTask, schema: dict[str, Any] | None = None) -> Task:
    """The task that a recipe asks for.

    Args:
        settings: the recipe's `task`.
        schema: of an extraction: the content of its `schema` file; the file is read when absent.

    Raises:
        BadInput: the schema is not supported, or the labels are missing or no set.
    """
    if isinstance(settings, ExtractionTask):
        schema = read_schema(settings.json_schema) if schema is None else schema
        return Extraction(schema, settings.label, settings.instruction, settings.max_answer_tokens)
    if settings.labels is None:
        raise BadInput("task.labels is missing", hint="list them, or let the data stage take them from the rows")
    return Classification(tuple(settings.labels), settings.instruction, settings.max_answer_tokens)


def from_description(description: Mapping[str, Any]) -> Task:
    """The task whose `describe()` gave `description`.

    Raises:
        BadInput: it is no description of a task.
    """
    kinds: dict[Any, type[Extraction] | type[Classification]] = {
        "extraction": Extraction,
        "classification": Classification,
    }
    kind = description.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise BadInput(f"a task of kind {kind!r} is not known; known: {', '.join(kinds)}")
    given = {name: value for name, value in description.items() if name != "kind"}
    wanted = {field.name for field in fields(kinds[kind])}
    if odd := sorted(set(given) ^ wanted):
        raise BadInput(f"task description: {odd[0]} is {'missing' if odd[0] in wanted else 'not known'}")
    try:
        return TypeAdapter(kinds[kind]).validate_python(given)
    except ValidationError as error:
        detail = error.errors()[0]
        raise BadInput(f"task description: {'.'.join(map(str, detail['loc']))}: {detail['msg']}") from None


def read_schema(path: Path) -> dict[str, Any]:
    """The JSON object in the file `path`.

    Raises:
        BadInput: the file cannot be read or does not hold one.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_SCHEMA_BYTES + 1)
    except OSError as error:
        raise BadInput(f"task.schema: {path}: {error.strerror}") from None
    if len(content) > _MAX_SCHEMA_BYTES:
        raise BadInput(f"task.schema: {path}: larger than {_MAX_SCHEMA_BYTES:,} bytes")
    try:
        schema = strict_json.loads(content.decode("utf-8-sig"))
    except ValueError as error:
        raise BadInput(f"task.schema: {path}: {error}") from None
    if not isinstance(schema, dict):
        raise BadInput(f"task.schema: {path}: must hold a JSON object")
    return schema
