"""Fetching a model and cutting a student out of it, as stages of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from slmops.pipeline.stage import Context
from slmops.recipe.models import Settings


class FetchSettings(Settings):
    """Which model; the file behind it enters the key through the node's source."""

    model: str
    chat_template: str


class Fetch:
    """A model reference → `model/`, a plain Hugging Face folder in float32."""

    name: ClassVar[str] = "fetch"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("transformers", "gguf")

    def run(self, inputs: Mapping[str, Path], settings: FetchSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.models.source import count_parameters, materialise, weights_bytes

        with context.progress.task("load the base model", None, "") as task:
            model = materialise(settings.model, context.out / "model", chat_template=settings.chat_template)
            task.advance()
        (context.out / "source.json").write_text(json.dumps({"model": settings.model}) + "\n")
        return {"parameters": count_parameters(model), "weights_bytes": weights_bytes(context.out)}
