"""A round: rows are chosen and answered, and a student is trained on all answers so far."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from slmops.data.read import read_jsonl
from slmops.evaluate.compare import headline
from slmops.pipeline.stage import Context, Node
from slmops.recipe.selecting import Select
from slmops.recipe.settings import Settings
from slmops.recipe.student import Carve
from slmops.recipe.teachers import Asking
from slmops.select.curve import Point
from slmops.select.stage_rows import (
    FIGURES,
    DrawRows,
    DrawSettings,
    KeepRows,
    KeepSettings,
    MeasureStudent,
    WeighRows,
    WeighSettings,
)
from slmops.tasks import task_of
from slmops.teach.paying import EndpointAsking
from slmops.teach.stage import Join, Teach
from slmops.teach.stage_curate import CurateAnswers, CurateSettings
from slmops.teach.stage_endpoint import TeachByEndpoint, rows_answered
from slmops.train.stage import CALLBACK, OBJECTIVE, CarveStudent, Distil, DistilSettings

STAGES = (
    *(WeighRows, DrawRows, KeepRows, Teach, TeachByEndpoint, Join),
    *(CurateAnswers, CarveStudent, Distil, MeasureStudent),
)
"""All that a round may ask for."""


class SelectSettings(Settings):
    """How rows are chosen, who is asked (an endpoint, or a teacher that runs here), and the student of every round."""

    # A budget decides here what is bought, and with it a price, so both are in the key.
    unkeyed: ClassVar[Mapping[str, Any]] = {
        "asking": {
            "privacy": EndpointAsking.unkeyed["privacy"],
            "teacher": EndpointAsking.unkeyed["teacher"] - {"price"},
        },
        "distil": DistilSettings.unkeyed,
    }

    select: Select
    asking: EndpointAsking | Asking
    curate: CurateSettings
    carve: Carve
    distil: DistilSettings

    def check_surroundings(self) -> None:
        """As of the stages that are asked for.

        Raises:
            BadInput: something is not there.
        """
        self.distil.check_surroundings()
        if isinstance(self.asking, EndpointAsking):
            self.asking.check_surroundings()


@dataclass
class Rounds:
    """What is done in rounds, each part of it a step of the run.

    Attributes:
        figure: the task's main one.
        pool: how many rows there are to choose from.
        folders: of every artifact so far, by its node.
        drawn: the node of the rows of this round and all before it.
        rows, answers: the nodes of the rows that are answered, and of their answers.
        asked: the ids of `rows`.
    """

    settings: SelectSettings
    inputs: Mapping[str, Path]
    context: Context
    folders: dict[str, Path] = field(default_factory=dict)
    drawn: str = ""
    rows: str = ""
    answers: str = ""
    asked: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.figure = headline(task_of(self.inputs["data"])).name
        self.pool = len(read_jsonl(self.inputs["rows"] / "pool.jsonl"))

    def draw(self, number: int) -> bool:
        """Choose the rows of a round; false where none are left."""
        if len(self.asked) == self.pool:
            return False
        select, given = self.settings.select, {"rows": "rows"}
        settings = DrawSettings(rows=select.rows if number else select.first)
        if number:
            given["before"] = self.rows
        if number and select.by == "uncertainty":
            weigh = WeighSettings(candidates=select.candidates)
            self._make(Node(f"doubts:{number}", WeighRows, weigh, {**given, "model": f"student:{number - 1}"}))
            given["doubts"] = f"doubts:{number}"
            settings = settings.model_copy(update={"unlike": select.unlike})
        self.drawn = f"rows:{number}"
        self._make(Node(self.drawn, DrawRows, settings, given))
        return True

    def buy(self) -> None:
        """Have the rows that were drawn answered.

        Raises:
            BudgetReached: not all of them are.
        """
        drawn, asking = self._ids(self.drawn), self.settings.asking
        answers = self.drawn.replace("rows", "answers", 1)
        if isinstance(asking, EndpointAsking):
            # All rows so far, of which the new ones alone are asked: so the budget counts all.
            self._make(Node(answers, TeachByEndpoint, asking, {"data": self.drawn, **self._of("teach")}))
        else:
            self._ask_here(answers, asking, [one for one in drawn if one not in self.asked])
        self.rows, self.answers, self.asked = self.drawn, answers, set(drawn)

    def settle(self) -> bool:
        """Where a budget has ended a round, go on with what it did buy; false where that is nothing."""
        asking = self.settings.asking
        assert isinstance(asking, EndpointAsking)  # noqa: S101 - nobody else has a budget
        known = rows_answered(self.folders[self.drawn], asking, self.context)
        if self.asked.issuperset(known):
            return False
        kept = f"{self.drawn}:bought"
        self._make(Node(kept, KeepRows, KeepSettings(ids=known), {"rows": self.drawn}))
        self.drawn = kept
        self.buy()
        return True

    def learn(self, number: int) -> Point:
        """Train a student on all answers so far, as the recipe says, and measure it on the validation rows."""
        settings = self.settings
        curate, carved, student, measured = (f"{step}:{number}" for step in ("curate", "carved", "student", "measured"))
        own = {name: path for name, path in self.inputs.items() if name.startswith((OBJECTIVE, CALLBACK))}
        # The draws of a teacher that is asked several times a row vote as elsewhere.
        votes = {"answers_1": self.answers} if settings.curate.weights else {}
        learns = {**self._of("learn"), "answers": curate, "student": carved}
        self._make(
            Node(curate, CurateAnswers, settings.curate, {"data": "data", "answers": self.answers, **votes}),
            Node(carved, CarveStudent, settings.carve, {**self._of("carve"), "answers": curate}),
            Node(student, Distil, settings.distil, learns, own),
            Node(measured, MeasureStudent, Settings(), {"model": student, "data": "data"}),
        )
        value = json.loads((self.folders[measured] / FIGURES).read_text(encoding="utf-8"))[self.figure]
        learned = len(read_jsonl(self.folders[curate] / "answers.jsonl"))
        self.context.progress.note(f"{len(self.asked):,} rows: {self.figure} {value:.3f} on the validation rows")
        return Point(number, len(self.asked), learned, value)

    def _ask_here(self, answers: str, asking: Asking, new: list[str]) -> None:
        """A teacher that runs here answers the new rows alone; what it said in each round becomes one."""
        number = 1 + sum(name.startswith("new:") for name in self.folders)
        rows, taught, model = f"new:{number}", f"taught:{number}", self._of("teach")
        self._make(
            Node(rows, KeepRows, KeepSettings(ids=new), {"rows": self.drawn}),
            Node(taught, Teach, asking, {"data": rows, **model}),
        )
        joined = {"data": self.drawn}
        for n in range(1, number + 1):
            joined |= {f"answers_{n}": f"taught:{n}", f"engine_{n}": model.get("engine", model["model"])}
            joined |= {f"rows_{n}": f"new:{n}"} if n > 1 else {}
        self._make(Node(answers, Join, Settings(), joined))

    def _of(self, step: str) -> dict[str, str]:
        """The inputs that are there for a step, as it calls them and as this stage does."""
        return {name.removeprefix(f"{step}:"): name for name in self.inputs if name.startswith(f"{step}:")}

    def _ids(self, node: str) -> list[str]:
        return [row["id"] for row in read_jsonl(self.folders[node] / "pool.jsonl")]

    def _make(self, *nodes: Node) -> None:
        self.folders |= self.context.make(nodes)
