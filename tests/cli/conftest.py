"""The command line over toy stages: in this process where that makes no difference, which is a hundred times faster."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

RECIPE = """
name: {name}
task: {{kind: classification}}
data: {{sample: {{name: tickets}}}}
teachers: [{{name: big, kind: transformers, model: wheel:none}}]
"""
Done = subprocess.CompletedProcess[str]


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a valid recipe of some name."""

    def write(name: str = "toy") -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(RECIPE.format(name=name))
        return path

    return write


@pytest.fixture
def slmops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs the command line over toy stages, in an empty folder."""
    import toy_cli

    monkeypatch.setattr("slmops.pipeline.plan.nodes_for", toy_cli.nodes_for)
    monkeypatch.setattr("slmops.bundle.place_bundle", toy_cli.place_bundle)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Done:
        monkeypatch.setattr("sys.argv", ["slmops", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            toy_cli.main()
        return Done(sys.argv, end.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture
def toy_command(tmp_path: Path) -> list[str]:
    """The same as a process of its own."""
    return [sys.executable, str(Path(__file__).with_name("toy_cli.py"))]
