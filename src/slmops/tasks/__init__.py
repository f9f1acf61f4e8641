"""The kinds of task: how to ask, how to read the answer, how to judge it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from slmops.errors import BadInput
from slmops.recipe.task import ClassificationTask, ExtractionTask, NliTask, TaskSettings
from slmops.tasks import strict_json
from slmops.tasks.base import Message, ParseFailure, Row, Task, metrics
from slmops.tasks.classification import Classification
from slmops.tasks.conversation import Conversation, conversation, last_message, turns
from slmops.tasks.extraction import Extraction
from slmops.tasks.maths import Maths
from slmops.tasks.nli import Nli, hypothesis_of, premise_and_hypothesis
from slmops.tasks.open_answer import Generation
from slmops.tasks.qa import QuestionAnswering, question, question_of
from slmops.tasks.summarisation import Summarisation

__all__ = [
    "KINDS",
    "Classification",
    "Conversation",
    "Extraction",
    "Generation",
    "Maths",
    "Message",
    "Nli",
    "ParseFailure",
    "QuestionAnswering",
    "Row",
    "Summarisation",
    "Task",
    "asked_part",
    "figure_names",
    "from_description",
    "input_reader",
    "make_task",
    "metrics",
    "plain_text",
    "read_schema",
    "task_of",
    "with_asked",
]

KINDS: Mapping[str, type[Any]] = {
    kind.kind: kind
    for kind in (Extraction, Classification, Nli, QuestionAnswering, Maths, Summarisation, Generation, Conversation)
}

_INPUTS: Mapping[str, Callable[[Any], str | ParseFailure]] = {
    Nli.kind: premise_and_hypothesis,
    QuestionAnswering.kind: question,
    Conversation.kind: conversation,
}

_ASKED: Mapping[str, Callable[[str], str]] = {
    Nli.kind: hypothesis_of,
    QuestionAnswering.kind: question_of,
    Conversation.kind: last_message,
}

_MAX_SCHEMA_BYTES = 1_000_000


def make_task(settings: TaskSettings, schema: dict[str, Any] | None = None) -> Task:
    """The task that a recipe asks for.

    Args:
        settings: the recipe's `task`.
        schema: of an extraction: the content of its `schema` file; the file is read when absent.

    Raises:
        BadInput: the schema is not supported, or the labels are missing or no set.
    """
    common: tuple[Any, ...] = (settings.instruction, settings.max_answer_tokens)
    if isinstance(settings, ExtractionTask):
        schema = read_schema(settings.json_schema) if schema is None else schema
        return Extraction(schema, settings.label, *common)
    if isinstance(settings, ClassificationTask | NliTask):
        if settings.labels is None:
            raise BadInput("task.labels is missing", hint="list them, or let the data stage take them from the rows")
        common = (tuple(settings.labels), *common)
    task: Task = KINDS[settings.kind](*common)
    return task


def task_of(data: Path) -> Task:
    """The task that the rows in the artifact `data` are of; see `from_description`."""
    return from_description(json.loads((data / "task.json").read_text(encoding="utf-8")))


def input_reader(kind: str) -> Callable[[Any], str | ParseFailure]:
    """What makes the one text of an input out of what a row gives: a text, or the parts that some kinds know."""
    return _INPUTS.get(kind, plain_text)


def asked_part(kind: str, text: str) -> str:
    """Of an input that has parts the one that is asked: two questions on one context are not one question twice."""
    return _ASKED[kind](text) if kind in _ASKED else text


def with_asked(kind: str, text: str, change: Callable[[str], str]) -> str:
    """`text` with the part that is asked changed; a context, a premise and earlier messages stay as they are."""
    if kind == Conversation.kind and (held := turns(text)):
        last = {**held[-1], "content": change(held[-1]["content"])}
        return json.dumps([*held[:-1], last], ensure_ascii=False)
    asked = asked_part(kind, text)  # which stands last
    return text[: len(text) - len(asked)] + change(asked)


def plain_text(given: Any) -> str | ParseFailure:
    """An input that can only be a text."""
    return given if isinstance(given, str) else ParseFailure("it must be a text")


def figure_names(settings: TaskSettings) -> list[str]:
    """The names of the figures that the task of a recipe has, without need of its data."""
    if isinstance(settings, ExtractionTask):
        label = [settings.label] if settings.label else []
        properties = {name: {"type": "string"} for name in (*label, "field")}
        task = make_task(settings, {"type": "object", "properties": properties, "additionalProperties": False})
    elif isinstance(settings, ClassificationTask):
        task = make_task(settings.model_copy(update={"labels": ["one", "other"]}))
    else:
        task = make_task(settings)
    return [figure.name for figure in task.figures()]


def from_description(description: Mapping[str, Any]) -> Task:
    """The task whose `describe()` gave `description`.

    Raises:
        BadInput: it is no description of a task.
    """
    kind = description.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise BadInput(f"a task of kind {kind!r} is not known; known: {', '.join(KINDS)}")
    given = {name: value for name, value in description.items() if name != "kind"}
    wanted = {field.name for field in fields(KINDS[kind])}
    if odd := sorted(set(given) ^ wanted):
        raise BadInput(f"task description: {odd[0]} is {'missing' if odd[0] in wanted else 'not known'}")
    try:
        task: Task = TypeAdapter(KINDS[kind]).validate_python(given)
    except ValidationError as error:
        detail = error.errors()[0]
        raise BadInput(f"task description: {'.'.join(map(str, detail['loc']))}: {detail['msg']}") from None
    return task


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
