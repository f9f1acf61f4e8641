"""What the trainings of a recipe need, told before they run, and beside it what they took where they have run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmops.errors import BadInput
from slmops.models.stage import Fetch
from slmops.pipeline.keys import address
from slmops.pipeline.plan import nodes_for
from slmops.pipeline.plan.rows import made, prepared
from slmops.pipeline.store import Store
from slmops.recipe.models import Recipe
from slmops.train.forecast import Forecast
from slmops.train.stage import Fit, expected


@dataclass(frozen=True)
class Training:
    """A step that trains on the labelled rows.

    Attributes:
        node: its name in the run.
        method: which weights move.
        forecast: what it needs.
        figures: what it took, by name; nothing where it has not run.
    """

    node: str
    method: str
    forecast: Forecast
    figures: Mapping[str, float | str]

    def describe(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "node": self.node,
            "method": self.method,
            "forecast": self.forecast.describe(),
            "figures": dict(self.figures),
        }


def trainings(recipe: Recipe, home: Path) -> list[Training]:
    """Every step of a run of `recipe` that trains a model as it comes on the labelled rows.

    What a student learns of a teacher's answers, and which of its weights are left of a cut, are known only when the
    teacher has answered; such steps are not among them.

    Raises:
        BadInput: see `nodes_for` and `PrepareData`; or no step is of this kind.
    """
    steps, store = {step.node.id: step for step in address(nodes_for(recipe), recipe.seed)}, Store(home)
    rows = {"data": recipe} | {f"data:{name}": recipe.of_adapter(name) for name in recipe.adapters}
    found = []
    for step in steps.values():
        given = step.node.inputs
        if step.node.stage is not Fit or steps[given["model"]].node.stage is not Fetch or given["data"] not in rows:
            continue
        settings = step.node.settings
        with prepared(rows[given["data"]], home) as data, made(steps[given["model"]], store) as model:
            told = expected(model / "model", data, settings, seed=recipe.seed)  # type: ignore[arg-type]
        method = settings.adapter.method if settings.adapter else "full"  # type: ignore[attr-defined]
        done = store.find(step.key)
        found.append(Training(step.node.id, method, told, done.manifest.metrics if done else {}))
    if not found:
        raise BadInput(
            "no step of this recipe trains a model as it comes on the labelled rows",
            hint="what a student needs that is cut or learns answers is told in the log when it begins",
        )
    return found
