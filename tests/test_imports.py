"""What importing costs: a command answers at once, and a library is loaded by the work that needs it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata

import pytest

import slmops

HEAVY = (
    "matplotlib",
    "numpy",
    "onnxruntime",
    "onnxruntime_genai",
    "pyarrow",
    "scipy",
    "sklearn",
    "torch",
    "transformers",
)


def loaded_by(code: str) -> set[str]:
    """The heavy libraries that a process has loaded at the end of `code`."""
    told = f"{code}\nimport json, sys; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import slmops; slmops.__version__",
        "import slmops; slmops.Recipe; slmops.run",
        "from slmops.cli.main import app; app(['run', '--help'], standalone_mode=False)",
    ],
)
def test_nothing_heavy_is_loaded_before_work_begins(code: str) -> None:
    assert loaded_by(code) == set()


def test_opening_a_bundle_needs_no_pytorch() -> None:
    assert not loaded_by("import slmops; slmops.open_bundle") & {"torch", "transformers", "sklearn", "matplotlib"}


def test_planning_a_run_needs_no_runtime() -> None:
    """The stages are known by their classes; what they do is imported when they run."""
    assert not loaded_by("import slmops.pipeline.plan") & {"torch", "transformers", "sklearn", "matplotlib"}


def test_the_public_names_are_the_ones_that_work() -> None:
    assert dir(slmops) == sorted(slmops.__all__)
    assert slmops.__version__ == metadata.version("slmops")
    for name in slmops.__all__:
        assert getattr(slmops, name)
    with pytest.raises(AttributeError, match="no attribute 'Receipt'"):
        slmops.Receipt  # noqa: B018
