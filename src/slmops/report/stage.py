"""The report as a stage of a run: `table.txt` for the terminal, `report.html` for everyone else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from slmops.pipeline.stage import Context
from slmops.recipe.models import Settings


class ReportSettings(Settings):
    recipe: dict[str, Any]


class Report:
    """What a run made → one page. Without `teacher` or `baseline` their curves are left out."""

    name: ClassVar[str] = "report"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("jinja2", "matplotlib")

    def run(self, inputs: Mapping[str, Path], settings: ReportSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.report.page import page
        from slmops.report.table import table

        evidence, verdicts = _read(inputs["evaluate"] / "evidence.json"), _read(inputs["evaluate"] / "gates.json")
        text = table(evidence, verdicts)
        (context.out / "table.txt").write_text(text, encoding="utf-8")
        histories = {
            name: inputs[name] / "history.json" for name in ("teacher", "student", "baseline") if name in inputs
        }
        html = page(
            settings.recipe,
            evidence=evidence,
            verdicts=verdicts,
            table=text,
            errors=_read(inputs["evaluate"] / "errors.json"),
            data=_read(inputs["data"] / "data.json"),
            carved=_read(inputs["student_carved"] / "carve.json"),
            manifest=_read(inputs["bundle"] / "manifest.json"),
            histories={name: _read(path) for name, path in histories.items()},
        )
        (context.out / "report.html").write_text(html, encoding="utf-8")
        return {"bytes": len(html.encode())}


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
