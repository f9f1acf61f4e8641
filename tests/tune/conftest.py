from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Tiny
from tests.tuned_project import write_project


@pytest.fixture
def recipe(tiny: Tiny, tmp_path: Path) -> Path:
    """A recipe, its rows and its model."""
    return write_project(tmp_path, tiny.folder)
