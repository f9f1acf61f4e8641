"""A task whose answers the tiny model knows."""

from __future__ import annotations

import pytest

from slmops.engines import Engine, load_engine
from slmops.tasks import Extraction
from tests.tiny_task import TASK


@pytest.fixture(scope="session")
def task() -> Extraction:
    return TASK


@pytest.fixture(scope="session")
def engine(tiny_onnx) -> Engine:
    return load_engine("onnxruntime-genai", tiny_onnx, threads=1)
