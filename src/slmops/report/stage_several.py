"""The report of several adapters as a stage of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from slmops.pipeline.stage import Context
from slmops.recipe.settings import Settings


class ReportSeveralSettings(Settings):
    recipe: dict[str, Any]


class ReportSeveral:
    """What a run made of several adapters → `table.txt`, `report.html` and `report.json`.

    Needs `evaluate:NAME` (`evidence.json`, `gates.json`) and `adapter:NAME` (`history.json`, `training.json`) of every
    adapter of the recipe. `merged:NAME` (`evidence.json`) takes the place of the evidence where the adapter was merged;
    `merge:HOW` (`merge.json`) says into what, and `parity` (`gates.json`) how the adapters do as they ship.
    """

    name: ClassVar[str] = "report-several"
    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("jinja2",)

    def run(
        self, inputs: Mapping[str, Path], settings: ReportSeveralSettings, context: Context
    ) -> Mapping[str, float | str]:
        from slmops.report.several import Several, page, table
        from slmops.report.write import write_files

        def read(step: str, file: str) -> Any:
            return json.loads((inputs[step] / file).read_text(encoding="utf-8"))

        def of_all(step: str, file: str) -> dict[str, Any]:
            return {name: read(f"{step}:{name}", file) for name in names}

        names = list(settings.recipe["adapters"])
        merged = {name: read(f"merged:{name}", "evidence.json") for name in names if f"merged:{name}" in inputs}
        merges = [name for name in inputs if name.startswith("merge:")]
        several = Several(
            name=settings.recipe["name"],
            base=settings.recipe["student"]["model"],
            evidence=of_all("evaluate", "evidence.json") | merged,
            gates=of_all("evaluate", "gates.json"),
            merges={name.removeprefix("merge:"): read(name, "merge.json") for name in merges},
            histories=of_all("adapter", "history.json"),
            trainings=of_all("adapter", "training.json"),
            recipe=settings.recipe,
            parity=read("parity", "gates.json") if "parity" in inputs else (),
            command="slmops run recipe.yaml",
        )
        (context.out / "table.txt").write_text(table(several), encoding="utf-8")
        return {"bytes": write_files(context.out, page(several), several.record()), "verdict": several.title}
