"""Olive is found where it is installed, and what is missing is said before anything runs."""

from __future__ import annotations

import sys
import venv

import pytest

from slmops.errors import BadInput
from slmops.olive.environment import VARIABLE, olive_python, olive_versions


def test_it_is_looked_for_here_unless_the_variable_says_where(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert olive_python() == sys.executable
    monkeypatch.setenv(VARIABLE, "/elsewhere/bin/python")
    assert olive_python() == "/elsewhere/bin/python"
    with pytest.raises(BadInput, match="cannot be run") as told:
        olive_versions()
    assert VARIABLE in told.value.hint


def test_an_environment_without_it_is_refused_with_what_to_do(monkeypatch, tmp_path):
    venv.create(tmp_path / "bare", symlinks=True)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(BadInput, match=f"the environment of {VARIABLE} does not have") as told:
        olive_versions()
    assert "pip install 'slmops[olive]'" in told.value.hint


def test_another_series_is_refused(monkeypatch, tmp_path):
    venv.create(tmp_path / "new", symlinks=True)
    (packages,) = (tmp_path / "new" / "lib").glob("python*/site-packages")
    for name in ("olive-ai", "torch", "transformers", "peft", "accelerate", "datasets"):
        place = packages / f"{name.replace('-', '_')}-0.14.0.dist-info"
        place.mkdir()
        (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.14.0\n")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "new" / "bin" / "python"))
    with pytest.raises(BadInput, match=r"knows Olive 0\.13, and .* has 0\.14\.0"):
        olive_versions()
