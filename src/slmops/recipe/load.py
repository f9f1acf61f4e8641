"""A recipe from a file, with overrides, or from plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from slmops.errors import BadInput
from slmops.recipe.document import KeyPath, dotted, parse_yaml
from slmops.recipe.models import Recipe
from slmops.recipe.problems import explained

_MAX_BYTES = 1_000_000


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file.

    Args:
        path: the file; relative paths in it are meant from its folder.
        overrides: `train.epochs=5`, `teachers.0.fit.epochs=2`; values are YAML, later ones win.

    Raises:
        BadInput: every problem of the recipe, one per line, with its place and the nearest key.
    """
    path = Path(path)
    document = parse_yaml(_read(path), str(path))
    if not isinstance(document.value, dict):
        raise BadInput(f"{path}: a recipe is a mapping of keys to values", hint="docs/recipe.md shows a small one")
    data: dict[str, Any] = document.value
    places = {key: f"{path}:{line}" for key, line in document.lines.items()}
    for override in overrides:
        _apply(override, data, places)
    return _validated(data, path.parent, places)


def parse_recipe(mapping: Mapping[str, Any], *, folder: Path | str) -> Recipe:
    """The recipe in plain data; relative paths in it are meant from `folder`.

    Raises:
        BadInput: every problem of the recipe, one per line, with the nearest key.
    """
    return _validated(mapping, Path(folder), {})


def _validated(data: Mapping[str, Any], folder: Path, places: Mapping[KeyPath, str]) -> Recipe:
    try:
        return Recipe.model_validate(data, context={"folder": folder})
    except ValidationError as error:
        raise explained(error, places) from None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}", hint="give the path of a recipe file") from None
    if len(content) > _MAX_BYTES:
        raise BadInput(f"{path}: larger than {_MAX_BYTES:,} bytes, so it is no recipe")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}:{line}: not UTF-8", hint="save the recipe as UTF-8") from None


def _apply(override: str, data: dict[str, Any], places: dict[KeyPath, str]) -> None:
    """Set one value in `data`, in place, and note where it came from."""
    name, equals, text = override.partition("=")
    source = f"override {override}"
    if not equals or not all(name.split(".")):
        raise BadInput(f"{source}: an override is written key.key=value", hint="for example train.epochs=5")
    path: KeyPath = ()
    here: Any = data
    *parents, last = name.split(".")
    for part in parents:
        key = _key(here, part, path, source)
        path = (*path, key)
        if isinstance(here, dict) and here.get(part) is None:
            here[part] = {}
            places[path] = source
        here = here[key]
    key = _key(here, last, path, source)
    path = (*path, key)
    for below in [place for place in places if place[: len(path)] == path]:
        del places[below]
    here[key] = parse_yaml(text, source).value
    places[path] = source


def _key(here: Any, part: str, path: KeyPath, source: str) -> str | int:
    """`part` as a key of the mapping or a position in the list that stands at `path`."""
    if isinstance(here, dict):
        return part
    if isinstance(here, list):
        if part.isdecimal() and int(part) < len(here):
            return int(part)
        raise BadInput(f"{source}: {dotted(path)} is a list of {len(here)}; use its positions, the first is 0")
    raise BadInput(f"{source}: {dotted(path)} is a single value, so it has no key {part}")
