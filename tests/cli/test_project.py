"""`slmops init` and `slmops doctor`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from slmops.recipe import load_recipe
from slmops.tasks import make_task


def slmops(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "slmops.cli.main", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("kind", ["extraction", "classification"])
def test_init_makes_a_project_whose_recipe_and_rows_are_valid(tmp_path, kind):
    done = slmops("init", "help-desk", "--task", kind, cwd=tmp_path)
    folder = tmp_path / "help-desk"
    assert done.returncode == 0, done.stderr
    made = {str(path.relative_to(tmp_path)) for path in folder.rglob("*") if path.is_file()}
    assert set(done.stdout.split()) == made
    recipe = load_recipe(folder / "recipe.yaml")
    assert recipe.name == "help-desk"
    assert recipe.task.kind == kind
    train, pool, test = (rows(getattr(recipe.data, name)) for name in ("train", "pool", "test"))
    assert not {row["input"] for row in train} & {row["input"] for row in [*pool, *test]}
    assert all("output" not in row for row in pool)
    labels = sorted({row["output"] for row in train}) if kind == "classification" else None
    task = make_task(recipe.task.model_copy(update={"labels": labels}) if labels else recipe.task)
    assert [task.check(row["output"]) for row in [*train, *test]] == [None] * (len(train) + len(test))
    assert "help-desk" in (folder / "README.md").read_text()


def test_init_is_extraction_unless_told_otherwise(tmp_path):
    slmops("init", "support", cwd=tmp_path)
    assert (tmp_path / "support" / "ticket.schema.json").is_file()


def test_init_overwrites_nothing(tmp_path):
    (tmp_path / "support").mkdir()
    (tmp_path / "support" / "mine.txt").write_text("mine")
    done = slmops("init", "support", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "support exists already" in done.stderr
    assert [path.name for path in (tmp_path / "support").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("name", ["Support Desk", "ümlaut", ".hidden"])
def test_init_needs_a_name_for_a_recipe(tmp_path, name):
    done = slmops("init", name, cwd=tmp_path)
    assert done.returncode == 2
    assert "cannot be a recipe's name" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_doctor_shows_this_machine(tmp_path):
    done = slmops("doctor", "--home", tmp_path / "home", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("Python", "cores", "memory", "disk", "GPU", "CPU features", "store", "torch", "sample model"):
        assert name in done.stdout
    assert not (tmp_path / "home").exists()
    done = slmops("doctor", "--json", cwd=tmp_path)
    findings = json.loads(done.stdout)["findings"]
    assert {finding["state"] for finding in findings} <= {"ok", "note"}


def test_doctor_says_what_is_missing_and_how_to_mend_it(tmp_path):
    """A file stands where the store should be, which no one can write into."""
    (tmp_path / "home").write_text("a file")
    done = slmops("doctor", "--home", tmp_path / "home", cwd=tmp_path)
    assert done.returncode == 2
    assert "missing  store" in done.stdout
    assert "fix: " in done.stdout
    assert "error: missing: store" in done.stderr
