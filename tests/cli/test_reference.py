"""docs/cli.md says what `--help` says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from slmops.cli.reference import reference

DOCUMENT = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_document_is_current() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == reference(), "run python -m slmops.cli.reference"


@pytest.mark.parametrize("command", ["", "run", "store gc"])
def test_the_document_holds_what_help_prints(command: str) -> None:
    arguments = [sys.executable, "-m", "slmops.cli.main", *command.split(), "--help"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "80"})
    # Only here the program is a module with a long name.
    assert done.stdout.replace("python -m slmops.cli.main", "slmops") in reference()


@pytest.mark.parametrize(("edit", "status"), [("", 0), ("x", 1)])
def test_check_tells_a_stale_document(tmp_path: Path, edit: str, status: int) -> None:
    document = tmp_path / "docs" / "cli.md"
    command = [sys.executable, "-m", "slmops.cli.reference", str(document)]
    subprocess.run(command, check=True)
    document.write_text(document.read_text(encoding="utf-8") + edit, encoding="utf-8")
    done = subprocess.run([*command, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert ("is stale" in done.stdout) == bool(status)
