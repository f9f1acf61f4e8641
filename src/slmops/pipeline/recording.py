"""Writing a run into the history while it happens."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slmops.errors import SlmopsError
from slmops.pipeline.artifact import Figure
from slmops.pipeline.history import History, State
from slmops.pipeline.keys import Step
from slmops.pipeline.locks import hold


class Recording:
    """A run that is being recorded. `folder` holds its log and has the run's id as its name."""

    def __init__(self, history: History, folder: Path) -> None:
        self.folder = folder
        self.id = folder.name
        self.exit_code = 0
        """What the run ends with if nothing stops it."""
        self._database = history.database

    def start(self, name: str, recipe: Mapping[str, Any], steps: Sequence[Step], environment: dict[str, Any]) -> None:
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO runs (id, recipe_name, recipe, environment, started, state) VALUES (?, ?, ?, ?, ?, ?)",
                (self.id, name, json.dumps(recipe), json.dumps(environment), _now(), "running"),
            )
            # All keys are known now, so the store keeps the checkpoints of a run that is killed later.
            connection.executemany(
                "INSERT INTO steps (run, position, node, key, state) VALUES (?, ?, ?, ?, 'waiting')",
                [(self.id, position, step.node.id, step.key) for position, step in enumerate(steps)],
            )

    def step_added(self, step: Step) -> None:
        """A step that another one asks for; told once, however often it is asked for."""
        with self._database.writing() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO steps (run, position, node, key, state) "
                "SELECT ?, 1 + MAX(position), ?, ?, 'waiting' FROM steps WHERE run = ?",
                (self.id, step.node.id, step.key, self.id),
            )

    def step_started(self, node: str) -> None:
        with self._database.writing() as connection:
            connection.execute("UPDATE steps SET state = 'running' WHERE run = ? AND node = ?", (self.id, node))

    def step_done(self, node: str, *, cached: bool, seconds: float, metrics: Mapping[str, Figure]) -> None:
        with self._database.writing() as connection:
            connection.execute(
                "UPDATE steps SET state = 'done', cached = ?, seconds = ?, metrics = ? WHERE run = ? AND node = ?",
                (cached, seconds, json.dumps(metrics), self.id, node),
            )

    def finish(self, state: State, exit_code: int, error: str | None = None) -> None:
        with self._database.writing() as connection:
            connection.execute("UPDATE steps SET state = ? WHERE run = ? AND state = 'running'", (state, self.id))
            connection.execute(
                "UPDATE runs SET state = ?, exit_code = ?, error = ?, ended = ? WHERE id = ?",
                (state, exit_code, error, _now(), self.id),
            )

    def finish_with(self, error: BaseException) -> None:
        """Mark the run by what ended it."""
        exit_code = getattr(error, "exit_code", 1)
        text = str(error) if isinstance(error, SlmopsError) else f"{type(error).__name__}: {error}"
        self.finish("interrupted" if exit_code == 130 else "failed", exit_code, text)


@contextmanager
def recorded(
    history: History, name: str, recipe: Mapping[str, Any], steps: Sequence[Step], environment: dict[str, Any]
) -> Iterator[Recording]:
    """Record the run that the block is: its start, and its end however the block is left."""
    recording = Recording(history, _new_folder(history.folder))
    # The lock says that the run lives; the kernel takes it back even after `kill -9`.
    with hold(recording.folder / "lock"):
        recording.start(name, recipe, steps, environment)
        try:
            yield recording
        except BaseException as error:
            # The error is what the user must hear of. A run that cannot be marked as ended, because the disk is
            # full, is shown as killed.
            with suppress(OSError, sqlite3.Error):
                recording.finish_with(error)
            raise
        recording.finish("done", recording.exit_code)


def _new_folder(runs: Path) -> Path:
    while True:
        folder = runs / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
