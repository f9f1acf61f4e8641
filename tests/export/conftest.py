"""Bundles of a real model of two layers, as they ship: packed for each runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmops.bundle import write_bundle
from slmops.compress.convert import convert
from slmops.recipe.compress import CompressSettings
from slmops.tasks import Generation

INSTRUCTION = "Answer the customer."
CARD = "---\nlicense: apache-2.0\n---\n# Tiny\n"


def shipped(source: Path, folder: Path, **settings: str | int) -> Path:
    """The model in `source` as a bundle below `folder`."""
    convert(source, folder / "model", CompressSettings(algorithm="rtn", **settings), scratch=folder / "scratch")
    out = folder / "bundle"
    write_bundle(
        out,
        name="tiny",
        version="1.0.0",
        engine=settings.get("runtime", "onnxruntime-genai"),
        model_folder=folder / "model",
        task=Generation(INSTRUCTION, 40).describe(),
        lineage={},
        evidence={},
        card=CARD,
    )
    return out


@pytest.fixture(scope="session")
def packed(tiny, tmp_path_factory) -> Path:
    """In int4 with an int8 head, for onnxruntime-genai."""
    return shipped(tiny.folder, tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="session")
def packed_gguf(tiny, tmp_path_factory) -> Path:
    """The same for llama.cpp."""
    return shipped(tiny.folder, tmp_path_factory.mktemp("packed-gguf"), runtime="llama.cpp")
