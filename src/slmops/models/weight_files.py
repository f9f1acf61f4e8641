"""Which files of a model hold its weights."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = (".safetensors", ".onnx", ".onnx.data", ".onnx_adapter", ".gguf")
"""How their names end."""


def weights_bytes(folder: Path) -> int:
    """Bytes of the weight files below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.name.endswith(WEIGHTS))
