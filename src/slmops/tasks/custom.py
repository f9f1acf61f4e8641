"""Figures of a user's own: a function, named `package.module:function`, that judges one row."""

from __future__ import annotations

import importlib
import inspect
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.errors import BadInput
from slmops.tasks.base import ParseFailure

if TYPE_CHECKING:
    from slmops.tasks.figures import Figure

Function = Callable[[Any, Any, str], float]
"""Of the reference answer, the answer (None when it has not the task's form) and its text: a number, best in 0..1."""


@dataclass(frozen=True)
class CustomMetric:
    """A function that gives a figure: the mean of its numbers over the rows.

    Attributes:
        path: `package.module:function`, as in the recipe.
        function: what that names.
        source: the file of the module; what it says shapes the figure.
    """

    path: str
    function: Function
    source: Path

    @property
    def name(self) -> str:
        """What reports and gates call the figure."""
        return self.path.partition(":")[2]

    @property
    def column(self) -> str:
        return f"custom:{self.name}"

    def figure(self) -> Figure:
        from slmops.tasks.figures import Figure

        return Figure(self.name, (self.column,))

    def judge(self, row: str, reference: Any, answer: Any | ParseFailure, text: str) -> float:
        """The number of one row.

        Raises:
            BadInput: the function fails on this row, or gives no finite number.
        """
        given = None if isinstance(answer, ParseFailure) else answer
        try:
            number = self.function(reference, given, text)
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            raise BadInput(f"evaluate.metrics: {self.path} fails on row {row!r}: {told}", hint=_ANSWER_HINT) from error
        if not isinstance(number, Real) or not math.isfinite(number):
            raise BadInput(
                f"evaluate.metrics: {self.path} gives {str(number)[:60]!r} for row {row!r}", hint="return a number"
            )
        return float(number)


_ANSWER_HINT = "it is called with the reference, the answer (None when it has not the task's form) and the text"


def load_metrics(paths: Sequence[str], figures: Sequence[str] = ()) -> list[CustomMetric]:
    """The functions that `evaluate.metrics` names; importing them runs their modules.

    Args:
        paths: `package.module:function` each.
        figures: names that are taken.

    Raises:
        BadInput: names the position and path of one that cannot be imported, is no function of three arguments, or
            bears a name that is taken.
    """
    taken, found = set(figures), []
    for place, path in enumerate(paths):
        metric = _load(path, f"evaluate.metrics.{place}: {path}")
        if metric.name in taken:
            raise BadInput(
                f"evaluate.metrics.{place}: {path}: there is another figure called {metric.name}",
                hint="give the function another name",
            )
        taken.add(metric.name)
        found.append(metric)
    return found


def _load(path: str, place: str) -> CustomMetric:
    module_name, _, name = path.partition(":")
    module = imported(module_name, place)
    function = getattr(module, name, None)
    if not inspect.isfunction(function) or inspect.iscoroutinefunction(function):
        functions = [known for known, value in vars(module).items() if inspect.isfunction(value) and known[0] != "_"]
        raise BadInput(f"{place}: is no function", hint="functions there: " + (", ".join(functions) or "none"))
    # Only what the module's own file says enters the key of the comparison.
    if function.__module__ != module_name or module.__file__ is None:
        raise BadInput(f"{place}: is defined in {function.__module__}", hint="name the module that defines it")
    try:
        inspect.signature(function).bind("reference", None, "text")
    except TypeError:
        raise BadInput(f"{place}: must take three arguments: reference, answer and text") from None
    return CustomMetric(path, function, Path(module.__file__))


def imported(module: str, place: str) -> Any:
    """The module that a recipe names at `place`.

    Raises:
        BadInput: it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise BadInput(
            f"{place}: there is no module {error.name}",
            hint=f"install it for {sys.executable}, or set PYTHONPATH to the folder it lies in",
        ) from None
    except Exception as error:
        raise BadInput(f"{place}: importing the module fails: {type(error).__name__}: {error}") from error
