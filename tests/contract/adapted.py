"""The tiny model with two adapters, in the form of each runtime that runs adapters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slmops.compress.adapters import convert_adapters
from slmops.recipe.compress import CompressSettings
from tests.adapters import ALL, ATTENTION, random_adapter

NAMES = ("first", "second")


@dataclass(frozen=True)
class Adapted:
    """A model of one runtime, and its adapters by name."""

    model: Path
    adapters: dict[str, Path]


def adapted_models(base: Path, out: Path) -> dict[str, Adapted]:
    """By the name of the runtime. The adapters have other ranks, and the second leaves most maps alone."""
    folders = {
        "first": random_adapter(base, out / "first", seed=1, targets=ALL, r=4),
        "second": random_adapter(base, out / "second", seed=2, targets=["q_proj", "v_proj"], r=2, use_rslora=True),
    }
    assert set(folders) == set(NAMES)
    assert set(ATTENTION) < set(ALL)
    convert_adapters(base, folders, out / "onnx", CompressSettings(precision="fp32"), scratch=out / "scratch")
    files = {name: out / "onnx" / "adapters" / f"{name}.onnx_adapter" for name in NAMES}
    return {
        "transformers": Adapted(base, folders),
        "onnxruntime-genai": Adapted(out / "onnx" / "model", files),
    }
