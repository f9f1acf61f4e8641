"""Conversion as a stage of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from slmops.models.source import weights_bytes
from slmops.pipeline.stage import Context
from slmops.recipe.models import CompressSettings


class Convert:
    """`model` (a Hugging Face folder) → `model/` (an onnxruntime-genai folder)."""

    name: ClassVar[str] = "convert"
    version: ClassVar[int] = 3
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime-genai", "onnxruntime", "onnx", "torch", "transformers")

    def run(
        self, inputs: Mapping[str, Path], settings: CompressSettings, context: Context
    ) -> Mapping[str, float | str]:
        from slmops.compress.convert import convert

        source, out = inputs["model"] / "model", context.out / "model"
        with context.progress.task(f"convert to {settings.precision}", None, "") as task:
            convert(source, out, settings, scratch=context.work / "scratch")
            task.advance()
        return {"weights_bytes": weights_bytes(out), "precision": settings.precision}
