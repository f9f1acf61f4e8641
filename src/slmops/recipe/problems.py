"""What is wrong with a recipe, said so that its writer can mend it: one line per problem."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from slmops.errors import BadInput
from slmops.recipe.document import KeyPath, dotted
from slmops.recipe.keys import fields, items, kind, models
from slmops.recipe.models import Recipe
from slmops.recipe.settings import MAPPING, PLAIN, Settings

_SHAPES = {
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "list_type": "must be a list",
    "string_type": "must be a text; put it in quotes",
    "path_type": "must be a path",
    "bool_type": "must be true or false",
}
_PYDANTIC_VOICE = re.compile(r"^(Input|String|List) should")


def explained(error: ValidationError, places: Mapping[KeyPath, str]) -> BadInput:
    """All of pydantic's findings in the recipe's own words.

    Args:
        error: of `Recipe`.
        places: where each key was written, e.g. `recipe.yaml:12`; may be empty.
    """
    order = {path: rank for rank, path in enumerate(places)}
    found: list[tuple[int, str]] = []
    for detail, path, owners in _first_hand(error, places):
        written = next((path[:end] for end in range(len(path), -1, -1) if path[:end] in places), None)
        place = "" if written is None else f"{places[written]}: "
        found.append((-1 if written is None else order[written], place + _say(detail, path, owners)))
    lines = [line for _, line in sorted(found, key=lambda ranked: ranked[0])]
    return BadInput("\n".join(lines), hint="docs/recipe.md explains every key")


def _first_hand(
    error: ValidationError, places: Mapping[KeyPath, str]
) -> list[tuple[ErrorDetails, KeyPath, list[type[Settings]]]]:
    """The findings without those that an adapter has from the recipe's own part, or the recipe from an adapter's.

    Nor of a key that nobody wrote, whose default is not found because another one is wrong.
    """
    details = (detail for detail in error.errors(include_url=False) if detail["type"] != "default_factory_not_called")
    located = [(detail, *_locate(detail)) for detail in details]
    alike: dict[tuple[KeyPath, str, str], list[tuple[ErrorDetails, KeyPath, list[type[Settings]]]]] = {}
    for detail, path, owners in located:
        below = path[2:] if path[:1] == ("adapters",) else path
        alike.setdefault((below, detail["type"], repr(detail["input"])), []).append((detail, path, owners))
    return [found for same in alike.values() for found in ([one for one in same if one[1] in places] or same[:1])]


def _locate(detail: ErrorDetails) -> tuple[KeyPath, list[type[Settings]]]:
    """The path as written, and the models that may own its last key.

    Pydantic puts the `kind` or the shape that it chose between the keys; a recipe has no such step.
    """
    path: list[str | int] = []
    owners: list[type[Settings]] = []
    annotation: Any = Recipe
    for part in detail["loc"]:
        if part in (PLAIN, MAPPING):
            continue
        here = models(annotation)
        if inside := items(annotation):
            owners, annotation = [], inside
        elif chosen := [model for model in here if len(here) > 1 and kind(model) == part]:
            annotation = chosen[0]
            continue
        else:
            owners = here
            annotation = next((fields(model)[str(part)].annotation for model in here if part in fields(model)), None)
        path.append(part)
    if detail["type"].startswith("union_tag"):
        return (*path, "kind"), models(annotation)
    return tuple(path), owners


def _say(detail: ErrorDetails, path: KeyPath, owners: list[type[Settings]]) -> str:
    name = dotted(path) or "the recipe"
    last = str(path[-1]) if path else ""
    known = [key for model in owners for key in fields(model)]
    match detail["type"]:
        case "extra_forbidden":
            near = get_close_matches(last, known, n=1)
            advice = f"did you mean {dotted((*path[:-1], near[0]))}?" if near else f"known here: {', '.join(known)}"
            return f"{name} is not a known key; {advice}"
        case "missing":
            meaning = next((fields(model)[last].description for model in owners if last in fields(model)), None)
            return f"{name} is missing" + (f": {meaning}" if meaning else "")
        case "union_tag_invalid":
            return f"{name} is {_shown(detail['ctx']['tag'])}; allowed: {', '.join(map(kind, owners))}"
        case "union_tag_not_found":
            return f"{name} is missing; allowed: {', '.join(map(kind, owners))}"
        case "literal_error":
            return f"{name} is {_shown(detail['input'])}; allowed: {detail['ctx']['expected']}"
        case "value_error":
            return f"{name}: {detail['ctx']['error']}"
        case shape if shape in _SHAPES:
            return f"{name} is {_shown(detail['input'])}; it {_SHAPES[shape]}"
        case _:
            rule = _PYDANTIC_VOICE.sub("it must", detail["msg"]).replace(" after validation", "")
            return f"{name} is {_shown(detail['input'])}; {rule}"


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
