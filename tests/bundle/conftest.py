"""A real bundle around the tiny model, which answers with tickets."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from slmops.bundle import Bundle, open_bundle, write_bundle
from slmops.tasks import Extraction
from tests.tiny_task import TASK

EVIDENCE = {"models": {"shipped": {"quality": {"exact_match": 0.95}}}}


@pytest.fixture(scope="session")
def task() -> Extraction:
    return TASK


@pytest.fixture(scope="session")
def written(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle; read-only for tests."""
    out = tmp_path_factory.mktemp("bundle") / "support"
    write_bundle(
        out,
        name="support",
        version="1.2.0",
        engine="onnxruntime-genai",
        model_folder=tiny_onnx,
        task=TASK.describe(),
        lineage={"seed": 7},
        evidence=EVIDENCE,
    )
    return out


@pytest.fixture(scope="session")
def opened(written: Path) -> Bundle:
    return open_bundle(written, threads=1)


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    """The bundle, to be harmed."""
    return Path(shutil.copytree(written, tmp_path / "copy"))
