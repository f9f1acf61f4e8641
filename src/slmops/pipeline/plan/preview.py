"""What a teacher behind an endpoint would be shown of the pool, before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

from slmops.data.stage import pool_rows
from slmops.privacy.placeholders import written
from slmops.privacy.redaction import redactor, unchanged
from slmops.recipe.models import Recipe
from slmops.recipe.teachers import EndpointTeacher


@dataclass(frozen=True)
class Shown:
    """A row of the pool.

    Attributes:
        text: its input as it would leave.
        values: what each placeholder in it stands for.
        counts: values by kind.
    """

    id: str
    text: str
    values: dict[str, str]
    counts: dict[str, int]

    def describe(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"id": self.id, "text": self.text, "values": self.values, "counts": self.counts}


def preview(recipe: Recipe, most: int) -> list[Shown]:
    """The first rows of the pool as an endpoint on another machine would see them.

    Raises:
        BadInput: the pool cannot be read, or the detector is not installed.
    """
    finder = redactor(recipe.privacy)
    shown = []
    for row in islice(pool_rows(recipe), most):
        redaction = finder.redact([row["input"]]) if finder else unchanged([row["input"]])
        values = {written(name): value for name, value in redaction.values.items()}
        shown.append(Shown(str(row["id"]), redaction.texts[0], values, dict(sorted(redaction.counts.items()))))
    return shown


def destinations(recipe: Recipe) -> list[tuple[str, str, bool]]:
    """Whom texts of a run go to: who it is, its address, and whether that counts as this machine."""
    judge = recipe.evaluate.judge
    asked = [(f"teacher {teacher.name}", teacher.base_url) for teacher in recipe.endpoints]
    asked += [(f"user {recipe.user.name}", recipe.user.base_url)] if isinstance(recipe.user, EndpointTeacher) else []
    asked += [("judge", judge.base_url)] if judge and judge.base_url else []
    return [(who, where, recipe.privacy.is_local(where)) for who, where in asked]
