"""Small Language Model Operations: from a task, data and a teacher to a small model with its evidence.

    from slmops import Recipe, open_bundle, run

    result = run(Recipe.load("recipe.yaml", ["train.epochs=1"]))
    print(open_bundle("bundles/support").predict("My card never came.").answer)

The names in `__all__` and what their docstrings say are stable: they change with a new major version alone, as do the
command line, the keys of a recipe and the format of a bundle. Every other module may change in any version.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slmops.bundle import open_bundle
    from slmops.pipeline.run import run
    from slmops.recipe import Recipe

    __version__: str

__all__ = ["Recipe", "__version__", "open_bundle", "run"]

_HOMES = {"Recipe": "slmops.recipe", "open_bundle": "slmops.bundle", "run": "slmops.pipeline.run"}


def __getattr__(name: str) -> Any:
    """Look a public name up when it is first asked for, so that `import slmops` costs nothing."""
    if name == "__version__":
        from importlib.metadata import version

        return version("slmops")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
