"""Rounding and conversion as a stage of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from slmops.models.weight_files import weights_bytes
from slmops.pipeline.stage import Context
from slmops.recipe.compress import CompressSettings


class Convert:
    """`model` (a Hugging Face folder) → `model/` (a folder of onnxruntime-genai, openvino or llama.cpp).

    With an input `data` the values of its weights are chosen on its rows, and a trimmed vocabulary is that of the rows
    and, with an input `answers`, of what a teacher answered.
    """

    name: ClassVar[str] = "convert"
    version: ClassVar[int] = 9
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime-genai", "onnxruntime", "onnx", "torch", "transformers")

    def run(
        self, inputs: Mapping[str, Path], settings: CompressSettings, context: Context
    ) -> Mapping[str, float | str]:
        from slmops.compress.convert import convert

        out = context.out / "model"
        figures = convert(
            inputs["model"] / "model",
            out,
            settings,
            data=inputs.get("data"),
            answers=inputs.get("answers"),
            scratch=context.work / "scratch",
            progress=context.progress,
        )
        return {"weights_bytes": weights_bytes(out), "precision": settings.precision, **figures}
