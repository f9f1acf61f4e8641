"""The JSON Schemas an extraction can have: one object with flat properties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slmops.errors import BadInput

TYPES = ("string", "number", "integer", "boolean", "null")
_NOTES = {"title", "description", "examples"}
_ROOT_KEYS = _NOTES | {"$schema", "type", "properties", "required", "additionalProperties"}
_PROPERTY_KEYS = _NOTES | {"type", "enum", "const", "minLength", "maxLength", "pattern", "minimum", "maximum"}


def check_schema(schema: Any) -> None:
    """Refuse a schema whose answers could not be written, compared and learned field by field.

    Raises:
        BadInput: says which key of the schema is the reason.
    """
    from jsonschema import Draft202012Validator, SchemaError

    if not isinstance(schema, dict):
        raise BadInput("schema: must be a JSON object")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise BadInput(f"schema: {error.json_path}: {error.message}", hint="see json-schema.org") from None
    _refuse_unknown("schema", schema, _ROOT_KEYS)
    if schema.get("type") != "object" or not schema.get("properties"):
        raise BadInput('schema: must have `"type": "object"` and at least one property')
    if schema.get("additionalProperties") is not False:
        raise BadInput('schema: answers have the named properties only: add `"additionalProperties": false`')
    if unknown := set(schema.get("required", ())) - set(schema["properties"]):
        raise BadInput(f"schema: required but not among the properties: {', '.join(sorted(unknown))}")
    for name, rules in schema["properties"].items():
        _check_property(f"schema: property `{name}`", rules)


def types(rules: Mapping[str, Any]) -> set[str]:
    """The types that a property's values may have."""
    if "type" in rules:
        given = rules["type"]
        return {given} if isinstance(given, str) else set(given)
    return {_type_of(value) for value in choices(rules) or ()}


def choices(rules: Mapping[str, Any]) -> list[Any] | None:
    """The closed list of a property's values, or None."""
    if "const" in rules:
        return [rules["const"]]
    if "enum" in rules:
        return list(rules["enum"])
    return [True, False] if rules.get("type") == "boolean" else None


def _check_property(place: str, rules: Any) -> None:
    if not isinstance(rules, dict):
        raise BadInput(f"{place} must be an object with a `type` or an `enum`")
    _refuse_unknown(place, rules, _PROPERTY_KEYS)
    if not types(rules):
        raise BadInput(f"{place} needs a `type` or an `enum`")
    if odd := types(rules) - set(TYPES):
        raise BadInput(f"{place} is of type {', '.join(sorted(odd))}; flat types are {', '.join(TYPES)}")


def _refuse_unknown(place: str, rules: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(rules) - known):
        raise BadInput(
            f"{place}: `{unknown[0]}` is not supported here; known: {', '.join(sorted(known))}",
            hint='a value that may be absent is `"type": ["string", "null"]` or simply not required',
        )


def _type_of(value: Any) -> str:
    names = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null", dict: "object"}
    return names.get(type(value), "array")
