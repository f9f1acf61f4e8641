"""Classes of the user's own, named `package.module:Class`: found, checked and made."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slmops.errors import BadInput
from slmops.tasks.custom import imported


def find_class(path: str, place: str) -> tuple[type, Path]:
    """The class that a recipe names at `place`, and the file that defines it; importing it runs its module.

    Raises:
        BadInput: it cannot be imported, or is no class of that module.
    """
    module_name, _, class_name = path.partition(":")
    module = imported(module_name, place)
    found = getattr(module, class_name, None)
    if not inspect.isclass(found):
        classes = [known for known, value in vars(module).items() if _defined_in(value, module_name)]
        raise BadInput(f"{place}: is no class", hint="classes there: " + (", ".join(classes) or "none"))
    # Only what the module's own file says enters the key of the training.
    if found.__module__ != module_name or module.__file__ is None:
        raise BadInput(f"{place}: is defined in {found.__module__}", hint="name the module that defines it")
    return found, Path(module.__file__)


def _defined_in(value: Any, module: str) -> bool:
    return inspect.isclass(value) and value.__module__ == module


def make(found: type, arguments: Mapping[str, Any], place: str) -> Any:
    """An object of the class.

    Raises:
        BadInput: it refuses the arguments, or fails.
    """
    try:
        inspect.signature(found).bind(**arguments)
    except TypeError as error:
        takes = ", ".join(inspect.signature(found).parameters) or "no arguments"
        raise BadInput(f"{place}: {error}", hint=f"its constructor takes: {takes}") from None
    try:
        return found(**arguments)
    except Exception as error:
        raise BadInput(f"{place}: making one fails: {type(error).__name__}: {error}") from error


def takes(method: Any, *arguments: str) -> bool:
    """Whether a method of a class can be called with so many arguments beside its object."""
    try:
        inspect.signature(method).bind("self", *arguments)
    except TypeError:
        return False
    return True
