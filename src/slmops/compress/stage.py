"""Rounding and conversion as a stage of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from slmops.models.source import weights_bytes
from slmops.pipeline.stage import Context
from slmops.recipe.compress import CompressSettings


class Convert:
    """`model` (a Hugging Face folder) → `model/` (an onnxruntime-genai folder).

    With an input `data` the layers are rounded to int4 by GPTQ first, measured on its rows.
    """

    name: ClassVar[str] = "convert"
    version: ClassVar[int] = 3
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime-genai", "onnxruntime", "onnx", "torch", "transformers")

    def run(
        self, inputs: Mapping[str, Path], settings: CompressSettings, context: Context
    ) -> Mapping[str, float | str]:
        from slmops.compress.convert import convert

        source, out, figures = inputs["model"] / "model", context.out / "model", dict[str, float]()
        if "data" in inputs:
            source, figures = _rounded(source, inputs["data"], settings, context)
        with context.progress.task(f"convert to {settings.precision}", None, "") as task:
            convert(source, out, settings, scratch=context.work / "scratch")
            task.advance()
        return {"weights_bytes": weights_bytes(out), "precision": settings.precision, **figures}


def _rounded(model: Path, data: Path, settings: CompressSettings, context: Context) -> tuple[Path, dict[str, float]]:
    """A copy of `model` with its layers on the int4 grid, and what GPTQ says of it."""
    from slmops.compress.calibration import calibration_texts
    from slmops.compress.gptq import quantise
    from slmops.models.device import fastest_device
    from slmops.models.source import load_model, save_model

    texts = calibration_texts(data, model, settings.calibration_tokens)
    loaded, folder = load_model(model, device=fastest_device()), context.work / "rounded"
    figures = quantise(loaded, texts, settings.block_size, context.progress)
    save_model(loaded, folder, tokenizer_from=model)
    return folder, figures
