"""The keys of the recipe's models, as a reader of a recipe sees them."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from slmops.recipe.settings import Settings


def members(annotation: Any) -> list[Any]:
    """The alternatives of a type, without None and without metadata."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return members(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [member for part in get_args(annotation) for member in members(part)]
    return [] if annotation in (None, NoneType) else [annotation]


def models(annotation: Any) -> list[type[Settings]]:
    """The models among the alternatives of a type; those in a list or a mapping count too."""
    found: list[type[Settings]] = []
    for member in members(annotation):
        if isinstance(member, type) and issubclass(member, Settings):
            found.append(member)
        elif get_origin(member) in (list, dict):
            found += models(get_args(member)[-1])
    return found


def items(annotation: Any) -> Any:
    """The type of what a list or a mapping holds; None for any other type."""
    collections = [member for member in members(annotation) if get_origin(member) in (list, dict)]
    return get_args(collections[0])[-1] if collections else None


def fields(model: type[Settings]) -> dict[str, FieldInfo]:
    """The fields of a model by the key that a recipe uses."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def kind(model: type[Settings]) -> str:
    """What `kind` says for one of several models that may stand in one place."""
    return str(get_args(model.model_fields["kind"].annotation)[0])
