"""A recipe from a file, with overrides, or from plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from slmops.errors import BadInput
from slmops.recipe.document import KeyPath, dotted, parse_yaml
from slmops.recipe.models import Recipe
from slmops.recipe.problems import explained

_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Written:
    """A recipe as it was written: plain data, with no default filled in.

    Attributes:
        data: of the file, with what was set over it.
        folder: where relative paths are meant from.
        places: where each key was written, e.g. `recipe.yaml:12`.
        over: dotted names and values that were set over the file.
        text: of the file.
    """

    data: Mapping[str, Any]
    folder: Path
    places: Mapping[KeyPath, str] = field(default_factory=dict)
    over: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""

    def recipe(self, values: Mapping[str, Any] | None = None) -> Recipe:
        """The recipe, with other values where some are given.

        Args:
            values: dotted name to value. A problem of one has the place of its name in `tune.space`.

        Raises:
            BadInput: every problem of the recipe, one per line, with its place and the nearest key.
        """
        data, places = self._set(values or {})
        try:
            return Recipe.model_validate(data, context={"folder": self.folder})
        except ValidationError as error:
            raise explained(error, places) from None

    def with_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """`data` with other values at dotted names."""
        data: dict[str, Any] = self._set(values)[0]
        return data

    def _set(self, values: Mapping[str, Any]) -> tuple[Any, dict[KeyPath, str]]:
        data: Any = deepcopy(self.data)
        places = dict(self.places)
        for name, value in values.items():
            _set(name, value, data, places, places.get(("tune", "space", name), f"tune.space.{name}"))
        return data, places


def value_at(recipe: Recipe, name: str) -> Any:
    """What `recipe`, defaults filled in, has at a dotted name, as plain data; None where it has nothing."""
    here: Any = recipe.resolved()
    for part in name.split("."):
        here = here[int(part)] if isinstance(here, list) else here.get(part) if isinstance(here, dict) else None
    return here


def read_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Written:
    """What stands in a YAML file and what is set over it, not looked at yet; see `load_recipe`.

    Raises:
        BadInput: the file is no YAML mapping, or an override does not say what to set.
    """
    path = Path(path)
    text = _read(path)
    document = parse_yaml(text, str(path))
    if not isinstance(document.value, dict):
        raise BadInput(f"{path}: a recipe is a mapping of keys to values", hint="docs/recipe.md shows a small one")
    data: dict[str, Any] = document.value
    places = {key: f"{path}:{line}" for key, line in document.lines.items()}
    over = [_parsed(override) for override in overrides]
    for name, value, source in over:
        _set(name, value, data, places, source)
    return Written(data, path.parent, places, {name: value for name, value, _ in over}, text)


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file.

    Args:
        path: the file; relative paths in it are meant from its folder.
        overrides: `train.epochs=5`, `teachers.0.fit.epochs=2`; values are YAML, later ones win.

    Raises:
        BadInput: every problem of the recipe, one per line, with its place and the nearest key.
    """
    return checked(read_recipe(path, overrides))


def parse_recipe(mapping: Mapping[str, Any], *, folder: Path | str) -> Recipe:
    """The recipe in plain data; relative paths in it are meant from `folder`.

    Raises:
        BadInput: every problem of the recipe, one per line, with the nearest key.
    """
    return checked(Written(mapping, Path(folder)))


def checked(written: Written) -> Recipe:
    """The recipe, of which every setting that is searched can have the values that it may be given.

    Raises:
        BadInput: see `load_recipe`.
    """
    recipe = written.recipe()
    for name, space in recipe.tune.space.items() if recipe.tune else ():
        for value in space.ends:
            written.recipe({name: value})
    return recipe


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


def _parsed(override: str) -> tuple[str, Any, str]:
    """The dotted name, the value, and what errors call the place."""
    name, equals, text = override.partition("=")
    source = f"override {override}"
    if not equals or not all(name.split(".")):
        raise BadInput(f"{source}: an override is written key.key=value", hint="for example train.epochs=5")
    return name, parse_yaml(text, source).value, source


def _set(name: str, value: Any, data: dict[str, Any], places: dict[KeyPath, str], source: str) -> None:
    """Set one value in `data`, in place, and note where it came from."""
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
    here[key] = value
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
