"""Every run below a home and what became of it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from slmops.errors import BadInput
from slmops.pipeline.artifact import Figure
from slmops.pipeline.database import Database
from slmops.pipeline.locks import is_held

State = Literal["waiting", "running", "done", "failed", "interrupted", "killed"]
"""Of a run or a step. `killed` is never written: it is what `running` means once the process is dead."""


@dataclass(frozen=True)
class StepRecord:
    """What became of one node. `seconds` is the time it took to make, by whichever run made it."""

    node: str
    key: str
    state: State
    cached: bool
    seconds: float | None
    metrics: dict[str, Figure]


@dataclass(frozen=True)
class RunRecord:
    """One execution of a recipe. Times are ISO 8601 in UTC; `recipe` is as resolved."""

    id: str
    name: str
    state: State
    exit_code: int | None
    error: str | None
    started: str
    ended: str | None
    recipe: dict[str, Any] = field(repr=False)
    environment: dict[str, Any] = field(repr=False)
    steps: tuple[StepRecord, ...] = field(repr=False)

    @property
    def seconds(self) -> float | None:
        """How long it ran; None when it has not ended, or was killed."""
        if self.ended is None:
            return None
        return (datetime.fromisoformat(self.ended) - datetime.fromisoformat(self.started)).total_seconds()


class History:
    """The runs below `home`.

    Raises:
        OSError, sqlite3.OperationalError: from every method, when the database cannot be read.
    """

    def __init__(self, home: Path) -> None:
        self.home = home.absolute()
        self.folder = self.home / "runs"
        self.database = Database(self.home / "slmops.db")

    def runs(self) -> list[RunRecord]:
        """All runs, the newest first."""
        rows, _ = self._rows()
        dead = {
            row["id"] for row in rows if row["state"] == "running" and not is_held(self.folder / row["id"] / "lock")
        }
        # A run writes its end before it lets go of its lock. So one that ended between the first look and the
        # question shows its end now, and one that still says `running` never will.
        rows, steps = self._rows()
        by_run: dict[str, list[sqlite3.Row]] = {}
        for step in steps:
            by_run.setdefault(step["run"], []).append(step)
        return [_run_record(row, by_run.get(row["id"], []), row["id"] in dead) for row in rows]

    def run(self, name: str) -> RunRecord:
        """The run with this id, the only one whose id begins so, or the newest for `last`.

        Raises:
            BadInput: there is none, or several.
        """
        runs = self.runs()
        found = runs[:1] if name == "last" else [run for run in runs if run.id.startswith(name)]
        if len(found) > 1:
            raise BadInput(f"{len(found)} runs begin with `{name}`", hint=f"give more of the id, as in {found[0].id}")
        if not found:
            raise BadInput(f"there is no run `{name}` in {self.home}", hint="`slmops runs` lists them")
        return found[0]

    def needed_keys(self, keep_runs: int | None = None) -> set[str]:
        """Keys of the runs that are kept: all, or for each recipe name those with fewer than `keep_runs`
        successful runs after them. So a killed run that is newer than the last success keeps its checkpoints.
        """
        later_successes: dict[str, int] = {}
        needed: set[str] = set()
        for run in self.runs():
            successes = later_successes.get(run.name, 0)
            if keep_runs is None or successes < keep_runs:
                needed.update(step.key for step in run.steps)
            later_successes[run.name] = successes + (run.state == "done")
        return needed

    def _rows(self) -> tuple[list[sqlite3.Row], list[sqlite3.Row]]:
        with self.database.reading() as connection:
            if connection is None:
                return [], []
            runs = connection.execute("SELECT * FROM runs ORDER BY rowid DESC").fetchall()
            return runs, connection.execute("SELECT * FROM steps ORDER BY position").fetchall()


def _run_record(row: sqlite3.Row, steps: Sequence[sqlite3.Row], dead: bool) -> RunRecord:
    def state(stored: State) -> State:
        return "killed" if dead and stored == "running" else stored

    return RunRecord(
        id=row["id"],
        name=row["recipe_name"],
        state=state(row["state"]),
        exit_code=row["exit_code"],
        error=row["error"],
        started=row["started"],
        ended=row["ended"],
        recipe=json.loads(row["recipe"]),
        environment=json.loads(row["environment"]),
        steps=tuple(
            StepRecord(
                node=step["node"],
                key=step["key"],
                state=state(step["state"]),
                cached=bool(step["cached"]),
                seconds=step["seconds"],
                metrics=json.loads(step["metrics"]),
            )
            for step in steps
        ),
    )
