"""The guide to deploying, run from bundle to folders."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from slmops.cli.main import app
from tests.test_docs import ROOT, commands

GUIDE = ROOT / "docs" / "guides" / "deploy.md"


def test_its_commands_write_what_it_names(packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(packed, tmp_path / "bundles" / "helpdesk")
    monkeypatch.chdir(tmp_path)
    exports = [words[1:] for words in commands(GUIDE) if words[:2] == ["slmops", "export"]]
    assert len(exports) == 5
    for arguments in exports:
        if "openvino" not in arguments:  # its converter is not installed with the project
            app(arguments, standalone_mode=False)
    told = set(re.findall(r"exports/(helpdesk-[a-z]+)", GUIDE.read_text(encoding="utf-8")))
    assert told == {path.name for path in (tmp_path / "exports").iterdir()}
    files = {path.name for path in tmp_path.glob("exports/*/*")}
    section = GUIDE.read_text(encoding="utf-8").partition("## A container")[2]
    assert set(re.findall(r"^\| `(\S+\.yaml)` \|", section, re.MULTILINE)) <= files
    assert {"Modelfile", "model.gguf", "inference_model.json", "genai_config.json", "Containerfile"} <= files
