"""Where Olive is installed: beside this project, or in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache

from slmops.errors import BadInput

VARIABLE = "SLMOPS_OLIVE_PYTHON"
"""Names the Python of another environment. What is where on a machine is no part of a recipe."""

SERIES = "0.13"
"""Of Olive, whose passes and names of settings are known here."""

INSTALL = f"pip install 'slmops[olive]', or set {VARIABLE} to the Python of an environment with olive-ai {SERIES}"

_PACKAGES = ("olive-ai", "torch", "transformers", "peft", "accelerate", "datasets")
_PROBE = """
import importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def olive_python() -> str:
    """The Python that runs Olive."""
    return os.environ.get(VARIABLE) or sys.executable


def olive_versions(*more: str) -> Mapping[str, str]:
    """Versions of Olive and of the packages that it trains with, where it is installed.

    Args:
        more: packages that are needed besides.

    Raises:
        BadInput: the Python cannot be run, a package is missing, or Olive is of another series.
    """
    python, wanted = olive_python(), (*_PACKAGES, *more)
    found = _installed(python, wanted)
    if missing := [name for name in wanted if name not in found]:
        raise BadInput(f"backend: olive needs {missing[0]}, which {_whose(python)} does not have", hint=INSTALL)
    if not found["olive-ai"].startswith(f"{SERIES}."):
        raise BadInput(
            f"backend: olive knows Olive {SERIES}, and {_whose(python)} has {found['olive-ai']}", hint=INSTALL
        )
    return found


@cache
def _installed(python: str, packages: tuple[str, ...]) -> Mapping[str, str]:
    try:
        # Isolated: neither the current folder nor PYTHONPATH is to lend it a package.
        done = subprocess.run(  # noqa: S603 - the user's own Python
            [python, "-I", "-c", _PROBE, *packages], capture_output=True, text=True, check=True
        )
        found: Mapping[str, str] = json.loads(done.stdout)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise BadInput(f"the Python {python} cannot be run: {error}", hint=f"mend {VARIABLE}") from error
    return found


def _whose(python: str) -> str:
    return "this environment" if python == sys.executable else f"the environment of {VARIABLE}"
