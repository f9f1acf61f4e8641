"""A text becomes a JSON object with the fields of a schema."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import PositiveInt

from slmops.errors import BadInput
from slmops.tasks import strict_json
from slmops.tasks.base import Message, ParseFailure, Row, messages
from slmops.tasks.schema import check_schema, types

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

    from slmops.tasks.figures import Figure


@dataclass(frozen=True)
class Extraction:
    """The task of reading the fields of a schema out of a text.

    Attributes:
        schema: JSON Schema of the answer, see `check_schema`; the order of its properties is the order of writing.
        label: the property that is a class, or None.
        instruction: system message of every request, or None.
        max_answer_tokens: longest answer, in tokens.

    Raises:
        BadInput: the schema is not supported, or `label` is no text property of it.
    """

    kind: ClassVar[str] = "extraction"

    schema: dict[str, Any]
    label_property: str | None
    instruction: str | None
    max_answer_tokens: PositiveInt

    def __post_init__(self) -> None:
        check_schema(self.schema)
        names = ", ".join(self.schema["properties"])
        if self.label_property is None:
            return
        if self.label_property not in self.schema["properties"]:
            raise BadInput(
                f"task.label is `{self.label_property}`, which the schema does not have (it has {names})",
                hint="name one of its properties, or set task.label to null",
            )
        if types(self.schema["properties"][self.label_property]) - {"null"} != {"string"}:
            raise BadInput(f"task.label is `{self.label_property}`, which is not a text property of the schema")

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The properties besides the label, in the schema's order."""
        return tuple(name for name in self.schema["properties"] if name != self.label_property)

    @cached_property
    def _validator(self) -> Draft202012Validator:
        from jsonschema import Draft202012Validator

        return Draft202012Validator(self.schema)

    def render(self, text: str) -> list[Message]:
        return messages(self.instruction, text)

    def write(self, answer: Any) -> str:
        """Compact JSON, properties in the schema's order."""
        ordered = {name: answer[name] for name in self.schema["properties"] if name in answer}
        return json.dumps(ordered, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

    def parse(self, text: str) -> Any | ParseFailure:
        try:
            answer = strict_json.loads(text)
        except ValueError as error:
            return ParseFailure(str(error))
        problem = self.check(answer)
        return answer if problem is None else ParseFailure(problem, readable=True)

    def label(self, answer: Any) -> str | None:
        value = None if self.label_property is None else answer.get(self.label_property)
        return None if value is None else str(value)

    def check(self, answer: Any) -> str | None:
        for error in self._validator.iter_errors(answer):
            place = ".".join(map(str, error.path))
            return (f"{place}: " if place else "") + str(error.message)[:200]
        try:
            json.dumps(answer, allow_nan=False)
        except (TypeError, ValueError) as error:
            return f"cannot be written as JSON: {error}"
        return None

    def judge(self, reference: Any, answer: Any | ParseFailure) -> Mapping[str, float]:
        """`exact_match`, `field_tp`, `field_fp`, `field_fn`, `valid_json`, `valid_schema`, `label_correct`.

        A field with a wrong value is one `field_fp` and one `field_fn`; an answer that does not parse has no fields.
        """
        wanted = _folded(reference)
        if isinstance(answer, ParseFailure):
            given: dict[str, str] = {}
            valid_json, valid_schema = answer.readable, False
        else:
            given, valid_json, valid_schema = _folded(answer), True, True
        hits = sum(name in given and given[name] == wanted.get(name) for name in self.fields)
        figures = {
            "exact_match": float(valid_schema and wanted == given),
            "field_tp": float(hits),
            "field_fp": float(sum(name in given for name in self.fields) - hits),
            "field_fn": float(sum(name in wanted for name in self.fields) - hits),
            "valid_json": float(valid_json),
            "valid_schema": float(valid_schema),
        }
        if self.label_property is not None:
            same = given.get(self.label_property) == wanted.get(self.label_property)
            figures["label_correct"] = float(valid_schema and same)
        return figures

    def figures(self) -> tuple[Figure, ...]:
        """`exact_match`, the label's accuracy, F1, precision and recall of all fields, `valid_json`, `valid_schema`."""
        from slmops.tasks.figures import Figure, micro_f1, precision, recall, share

        counts = ("field_tp", "field_fp", "field_fn")
        label = [Figure(f"{self.label_property}_accuracy", ("label_correct",))] if self.label_property else []
        return (
            share("exact_match", compared=True),
            *label,
            Figure("field_f1", counts, micro_f1, compared=True),
            Figure("field_precision", counts, precision),
            Figure("field_recall", counts, recall),
            share("valid_json"),
            share("valid_schema"),
        )

    def floor(self, train: Sequence[Row], texts: Sequence[str]) -> list[Any]:
        """TF-IDF and logistic regression for the label; learned patterns and word lists for the fields."""
        from slmops.tasks.floor import extract

        return extract(self.schema, self.label_property, train, texts)

    def describe(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "schema": self.schema,
            "label_property": self.label_property,
            "instruction": self.instruction,
            "max_answer_tokens": self.max_answer_tokens,
        }


def _folded(answer: Mapping[str, Any]) -> dict[str, str]:
    """Values as texts that are equal when people would call them equal; null is no value."""
    return {name: _fold(value) for name, value in answer.items() if value is not None}


def _fold(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value if isinstance(value, str) else json.dumps(value)
    return " ".join(unicodedata.normalize("NFC", text).split())
