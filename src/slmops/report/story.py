"""All that a report tells, gathered in one place before any of it is written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from slmops.report.failures import Group
from slmops.report.verdict import Verdict, judge
from slmops.report.words import written_by_teacher

FORMAT = 1
"""Of `report.json`; raised when an older reader would misread it."""


@dataclass(frozen=True)
class Story:
    """What is known; a part that a run does not have is absent, and the report leaves its chapter out.

    Attributes:
        name: of the project, or of the comparison.
        evidence: `evidence.json`, format 2.
        gates: `gates.json`.
        table: the comparison as plain text.
        recipe: as resolved, without paths.
        data: `data.json`.
        curated: the data card, `card.json`: what the student learned from, and what it did not.
        bought: `curve.json`: how far the student came with how many rows, where these were chosen in rounds.
        carved: `carve.json`.
        healed: `heal.json` of the student.
        histories: trained model to its `history.json`.
        trainings: trained model to its `training.json`: what its training moved, held and took.
        examples: rows beside the models' answers.
        parity: `parity.json`, and what its gates say as `gates`.
        regression: `regression.json`, the rows that once failed with what the shipped model answers now.
        front: the candidates of a search for the best compression; see `slmops.search.outcome.outcome`.
        manifest: of the bundle.
        command: what makes this report again.
    """

    name: str
    evidence: Mapping[str, Any]
    gates: Sequence[Mapping[str, Any]] = ()
    table: str = ""
    recipe: Mapping[str, Any] | None = None
    data: Mapping[str, Any] | None = None
    curated: Mapping[str, Any] | None = None
    bought: Mapping[str, Any] | None = None
    carved: Mapping[str, Any] | None = None
    healed: Mapping[str, Any] | None = None
    histories: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)
    trainings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    examples: Sequence[Group] = ()
    parity: Mapping[str, Any] | None = None
    regression: Sequence[Mapping[str, Any]] = ()
    front: Mapping[str, Any] | None = None
    manifest: Mapping[str, Any] | None = None
    command: str | None = None

    @cached_property
    def verdict(self) -> Verdict:
        return judge(self.evidence, self.gates, self.parity)

    @cached_property
    def written(self) -> list[str]:
        """What of the rows a teacher made."""
        return written_by_teacher(self.data or {})

    def record(self) -> dict[str, Any]:
        """`report.json`: the whole story as plain JSON data."""
        told = {
            "data": self.data,
            "curated": self.curated,
            "bought": self.bought,
            "carved": self.carved,
            "healed": self.healed,
            "histories": dict(self.histories) or None,
            "trainings": {name: dict(figures) for name, figures in self.trainings.items()} or None,
            "examples": [asdict(group) for group in self.examples] or None,
            "parity": self.parity,
            "regression": list(self.regression) or None,
            "front": self.front,
            "lineage": _lineage(self.manifest),
            "recipe": self.recipe,
            "command": self.command,
        }
        return {
            "format": FORMAT,
            "name": self.name,
            "verdict": asdict(self.verdict),
            "gates": list(self.gates),
            "evidence": self.evidence,
            **{name: part for name, part in told.items() if part is not None},
        }


def _lineage(manifest: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The manifest without the recipe and the task, which stand in the record already."""
    if manifest is None:
        return None
    lineage = {name: value for name, value in manifest.get("lineage", {}).items() if name != "recipe"}
    return {name: manifest[name] for name in ("name", "version", "engine", "files") if name in manifest} | lineage
