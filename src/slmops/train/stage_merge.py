"""Making one adapter of several as a stage of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from slmops.pipeline.stage import Context
from slmops.recipe.settings import Settings
from slmops.recipe.several import Merging


class MergeAdaptersSettings(Settings):
    """How, and how often the update of each adapter counts: by name, in the order of merging."""

    method: Merging
    weights: dict[str, float]
    density: float | None


class MergeAdapters:
    """`base` and the adapters `adapter:NAME` → `adapter/`, the one that they become, `model/`, the base with it merged
    in, and `merge.json` with how.
    """

    name: ClassVar[str] = "merge"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers", "peft")

    def run(
        self, inputs: Mapping[str, Path], settings: MergeAdaptersSettings, context: Context
    ) -> Mapping[str, float | str]:
        import torch

        from slmops.models.adapters.combine import combine
        from slmops.models.adapters.files import ADAPTER, OF
        from slmops.models.source import load_model, save_model

        folder = inputs["base"] / "model"
        parts = [(inputs[OF + name] / ADAPTER, weight) for name, weight in settings.weights.items()]
        with context.progress.task("merge the adapters", None, "") as task:
            model = load_model(folder, dtype=torch.float32)
            made = combine(model, parts, settings.method, density=settings.density, seed=context.seed)
            task.advance()
        save_model(model, context.out / "model", tokenizer_from=folder)
        made.save(context.out / ADAPTER)
        told = {**settings.model_dump(), "rank": made.config["r"], "adapter_bytes": made.size_bytes}
        (context.out / "merge.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        return {name: told[name] for name in ("method", "rank", "adapter_bytes")}
