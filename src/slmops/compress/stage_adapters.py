"""A base with slots for its adapters, as a stage of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from slmops.models.weight_files import weights_bytes
from slmops.pipeline.stage import Context
from slmops.recipe.compress import CompressSettings


class ConvertAdapters:
    """`base` and the adapters `adapter:NAME` → `model/`, the base for onnxruntime-genai with a slot beside each matrix,
    and `adapters/NAME.onnx_adapter`.
    """

    name: ClassVar[str] = "slots"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime-genai", "onnxruntime", "onnx", "torch", "transformers", "peft")

    def run(
        self, inputs: Mapping[str, Path], settings: CompressSettings, context: Context
    ) -> Mapping[str, float | str]:
        from slmops.compress.adapters import MODEL, convert_adapters
        from slmops.models.adapters.files import ADAPTER, named

        figures = convert_adapters(
            inputs["base"] / "model",
            {name: path / ADAPTER for name, path in named(inputs).items()},
            context.out,
            settings,
            scratch=context.work / "scratch",
            progress=context.progress,
        )
        return {"weights_bytes": weights_bytes(context.out / MODEL), "precision": settings.precision, **figures}
