"""A task whose answers the tiny model knows."""

from __future__ import annotations

import pytest

from slmops.engines import Engine, load_engine
from slmops.tasks import Extraction

TEXT = {"type": "string"}
SCHEMA = {
    "type": "object",
    "properties": {
        "intent": {"enum": ["order_late", "refund", "invoice", "other"]},
        "order": TEXT,
        "amount": TEXT,
        "name": TEXT,
    },
    "required": ["intent"],
    "additionalProperties": False,
}


@pytest.fixture(scope="session")
def task() -> Extraction:
    return Extraction(SCHEMA, "intent", None, 40)


@pytest.fixture(scope="session")
def engine(tiny_onnx) -> Engine:
    return load_engine("onnxruntime-genai", tiny_onnx, threads=1)
