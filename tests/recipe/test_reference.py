"""docs/recipe.md says what the models say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from slmops.recipe import parse_recipe
from slmops.recipe.keys import fields, models
from slmops.recipe.models import Recipe
from slmops.recipe.reference import SMALLEST, reference
from slmops.recipe.settings import Settings

DOCUMENT = Path(__file__).parents[2] / "docs" / "recipe.md"


def every_model(model: type[Settings]) -> Iterator[type[Settings]]:
    yield model
    for field in fields(model).values():
        for inner in models(field.annotation):
            yield from every_model(inner)


def test_the_document_is_current() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == reference(), "run python -m slmops.recipe.reference"


def test_every_key_and_section_is_explained() -> None:
    text = reference()
    for model in every_model(Recipe):
        assert model.__doc__
        for key, field in fields(model).items():
            assert field.description, f"{model.__name__}.{key} has no description"
            assert f"| `{key}` |" in text


def test_the_smallest_recipe_is_one(tmp_path: Path) -> None:
    small = yaml.safe_load(SMALLEST)
    for name in (small["task"]["schema"], *small["data"].values()):
        (tmp_path / name).write_text("")
    assert parse_recipe(small, folder=tmp_path).name == "support"
    assert len(SMALLEST.splitlines()) < 10


@pytest.mark.parametrize(("edit", "status"), [("", 0), ("x", 1)])
def test_check_tells_a_stale_document(tmp_path: Path, edit: str, status: int) -> None:
    document = tmp_path / "docs" / "recipe.md"
    command = [sys.executable, "-m", "slmops.recipe.reference", str(document)]
    assert subprocess.run([*command, "--check"], capture_output=True, check=False).returncode == 1
    subprocess.run(command, check=True)
    document.write_text(document.read_text(encoding="utf-8") + edit, encoding="utf-8")
    assert subprocess.run([*command, "--check"], capture_output=True, check=False).returncode == status
