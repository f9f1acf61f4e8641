"""Which schemas an extraction can have."""

from __future__ import annotations

import json
from typing import Any

import pytest

from slmops.errors import BadInput
from slmops.tasks.schema import check_schema, choices, types

TEXT = {"type": "string"}


def closed(properties: Any, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False, **more}


def test_flat_properties_of_every_kind() -> None:
    check_schema(
        closed(
            {
                "a": {"type": "string", "minLength": 1, "maxLength": 9, "pattern": "^[a-z]+$", "title": "A"},
                "b": {"type": ["number", "null"], "minimum": 0, "description": "…"},
                "c": {"type": "integer"},
                "d": {"type": "boolean"},
                "e": {"enum": ["x", 1, None]},
                "f": {"const": "y", "examples": ["y"]},
            },
            required=["a"],
            title="T",
            **{"$schema": "https://json-schema.org/draft/2020-12/schema"},
        )
    )


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ([], "must be a JSON object"),
        (True, "must be a JSON object"),
        ({}, '`"type": "object"`'),
        ({"type": "array"}, '`"type": "object"`'),
        (closed({}), "at least one property"),
        ({"type": "object", "properties": {"a": TEXT}}, '`"additionalProperties": false`'),
        ({**closed({"a": TEXT}), "additionalProperties": TEXT}, '`"additionalProperties": false`'),
        (closed({"a": TEXT}, required=["b"]), "required but not among the properties: b"),
        (closed({"a": TEXT}, required="a"), "'a' is not of type 'array'"),
        (closed({"a": TEXT}, oneOf=[{}]), "`oneOf` is not supported"),
        (closed({"a": TEXT}, **{"$defs": {}}), "`$defs` is not supported"),
        (closed({"a": True}), "property `a` must be an object"),
        (closed({"a": {}}), "property `a` needs a `type` or an `enum`"),
        (closed({"a": {"type": "object"}}), "property `a` is of type object; flat types are"),
        (closed({"a": {"type": ["string", "array"]}}), "property `a` is of type array"),
        (closed({"a": {"enum": ["x", {}]}}), "property `a` is of type object"),
        (closed({"a": {"type": "text"}}), "'text' is not valid"),
        (closed({"a": {"$ref": "https://example.com/x"}}), "`$ref` is not supported"),
        (closed({"a": {"anyOf": [TEXT, {"type": "null"}]}}), "`anyOf` is not supported"),
        (closed({"a": {"type": "string", "format": "date"}}), "`format` is not supported"),
        (closed({"a": {"type": "string", "pattern": "("}}), "is not a 'regex'"),
    ],
)
def test_others_are_refused_with_the_reason(schema: Any, message: str) -> None:
    with pytest.raises(BadInput) as error:
        check_schema(schema)
    assert str(error.value).startswith("schema: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("rules", "expected_types", "expected_choices"),
    [
        ({"type": "string"}, {"string"}, None),
        ({"type": ["integer", "null"]}, {"integer", "null"}, None),
        ({"type": "boolean"}, {"boolean"}, [True, False]),
        (
            {"enum": ["a", 1, 1.5, None, True]},
            {"string", "integer", "number", "null", "boolean"},
            ["a", 1, 1.5, None, True],
        ),
        ({"type": "string", "enum": ["a"]}, {"string"}, ["a"]),
        ({"const": 3}, {"integer"}, [3]),
    ],
)
def test_types_and_choices(rules: dict[str, Any], expected_types: set[str], expected_choices: Any) -> None:
    assert types(rules) == expected_types
    assert json.dumps(choices(rules)) == json.dumps(expected_choices)
