"""An answer as marks on the text: which characters are a field's value, and which of its options a field has.

A model that marks does not write: it points at values where a generator would have to copy them letter by letter. The
label of a whole text is the option of its one field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from slmops.errors import BadInput
from slmops.tasks.schema import choices, types

OUTSIDE = 0
"""The label of a token that belongs to no value."""

LABEL = "label"
"""The one field of an answer that is a label."""

_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")
_NUMERIC = {"number", "integer"}


@dataclass(frozen=True)
class Span:
    """The characters `start` to `end` of a text, as the value of a field."""

    field: str
    start: int
    end: int


@dataclass(frozen=True)
class Marks:
    """An answer as marks on its text.

    Attributes:
        spans: where values stand, in the text's order, none overlapping another; a value that stands in several places
            has several.
        options: for each field with a closed list its place in `Marking.options`.
        lost: fields whose value does not stand in the text.
    """

    spans: tuple[Span, ...]
    options: Mapping[str, int]
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Marking:
    """The labels of a schema.

    One group of labels is for tokens, in the BIO scheme (Ramshaw and Marcus 1995): `OUTSIDE`, and for each field of
    `copied` one that begins its value and one that goes on with it. Each field of `options` is a group of its own.
    Labels are numbered through, group after group.

    Attributes:
        copied: fields whose values stand in the text, in the schema's order, and whether they are numbers.
        options: the values that each other field can have; None among them: it can be absent.
        nulls: fields that are written as null when they are absent.
    """

    copied: Mapping[str, bool]
    options: Mapping[str, tuple[Any, ...]]
    nulls: frozenset[str]

    @classmethod
    def of(cls, schema: Mapping[str, Any]) -> Marking:
        """The marking of a schema that `check_schema` let pass.

        Raises:
            BadInput: a property can be marked neither as a part of the text nor as one of few options.
        """
        copied: dict[str, bool] = {}
        options: dict[str, tuple[Any, ...]] = {}
        required = set(schema.get("required", ()))
        nulls = set()
        for name, rules in schema["properties"].items():
            found, given = choices(rules), types(rules)
            if name in required and ("null" in given or (found and None in found)):
                nulls.add(name)
            if found is not None:
                absent = () if name in required and name not in nulls else (None,)
                options[name] = (*absent, *(value for value in found if value is not None))
            elif given - {"null"} == {"string"}:
                copied[name] = False
            elif given - {"null"} and given - {"null"} <= _NUMERIC:
                copied[name] = True
            else:
                kind = ", ".join(sorted(given))
                raise BadInput(
                    f"schema: property `{name}` is of type {kind}, which cannot be marked in a text",
                    hint="give it one type and `null`, or set student.head: language",
                )
        return cls(copied, options, frozenset(nulls))

    @classmethod
    def of_labels(cls, labels: Sequence[str]) -> Marking:
        """The marking of a text with one of `labels`: nothing is copied, and one field has options."""
        return cls({}, {LABEL: tuple(labels)}, frozenset())

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Labels of each group; the first is that of the tokens."""
        return (1 + 2 * len(self.copied), *map(len, self.options.values()))

    def begin(self, field: str) -> int:
        """The label of the first token of a value; the next label is that of its other tokens."""
        return 1 + 2 * list(self.copied).index(field)

    def first_option(self, field: str) -> int:
        """The label of a field's first option."""
        return sum(self.sizes[: 1 + list(self.options).index(field)])

    def mark(self, text: str, answer: Mapping[str, Any]) -> Marks:
        """The marks that `read` makes `answer` of again, unless some are `lost`.

        Longer values choose their places first, and whole words come before parts of words.
        """
        spans: list[Span] = []
        lost = []
        wanted = {name: answer[name] for name in self.copied if answer.get(name) is not None}
        for name, value in sorted(wanted.items(), key=lambda item: -len(str(item[1]))):
            free = [
                (start, end)
                for start, end in (_numbers(text, value) if self.copied[name] else _places(text, value))
                if all(end <= other.start or start >= other.end for other in spans)
            ]
            spans += [Span(name, start, end) for start, end in free]
            if not free:
                lost.append(name)
        picked = {}
        for name, values in self.options.items():
            value = answer.get(name)
            if value in values:
                picked[name] = values.index(value)
            else:
                lost.append(name)
        return Marks(tuple(sorted(spans, key=lambda span: span.start)), picked, tuple(sorted(lost)))

    def read(self, text: str, spans: Sequence[Span], options: Mapping[str, int]) -> dict[str, Any]:
        """The answer that marks stand for; of several places of one field the first counts."""
        answer: dict[str, Any] = dict.fromkeys(self.nulls)
        for span in reversed(spans):
            value = text[span.start : span.end]
            if not self.copied[span.field]:
                answer[span.field] = value
            elif (number := _NUMBER.fullmatch(value)) is not None:
                answer[span.field] = _number(number[0])
        for name, option in options.items():
            if self.options[name][option] is not None:
                answer[name] = self.options[name][option]
        return answer


def _places(text: str, value: str) -> list[tuple[int, int]]:
    """Where `value` stands in `text`: as words of their own, or else anywhere."""
    if not value.strip():
        return []
    found = re.escape(value)
    words = re.finditer(rf"(?<!\w){found}(?!\w)", text)
    return [match.span() for match in words] or [match.span() for match in re.finditer(found, text)]


def _numbers(text: str, value: float) -> list[tuple[int, int]]:
    return [match.span() for match in _NUMBER.finditer(text) if _number(match[0]) == value]


def _number(written: str) -> float:
    plain = written.replace(",", "")
    return float(plain) if "." in plain else int(plain)
