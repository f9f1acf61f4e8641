"""Fetching a model, as a stage of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from slmops.pipeline.stage import Context
from slmops.recipe.chat_template import ChatTemplate
from slmops.recipe.settings import Settings


class FetchSettings(Settings):
    """Which model. One in a folder is the node's source, so that its content enters the key and its path does not."""

    model: str | None = Field(description="As in the recipe; null for the folder that is the source `model`.")
    chat_template: ChatTemplate


class Fetch:
    """A model reference → `model/`, a plain Hugging Face folder in float32."""

    name: ClassVar[str] = "fetch"
    version: ClassVar[int] = 3
    libraries: ClassVar[tuple[str, ...]] = ("transformers", "gguf")

    def run(self, inputs: Mapping[str, Path], settings: FetchSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.models.source import count_parameters, materialise
        from slmops.models.weight_files import weights_bytes

        source = settings.model or str(inputs["model"])
        with context.progress.task("load the base model", None, "") as task:
            model = materialise(source, context.out / "model", chat_template=settings.chat_template)
            task.advance()
        name = settings.model or inputs["model"].name
        (context.out / "source.json").write_text(json.dumps({"model": name}) + "\n", encoding="utf-8")
        return {"parameters": count_parameters(model), "weights_bytes": weights_bytes(context.out)}
