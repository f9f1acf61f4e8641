"""One trial: a student is trained with the settings that are tried, and measured on the validation rows."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmops.errors import BadInput, Interrupted, SlmopsError
from slmops.pipeline.away import AwayExecutor
from slmops.pipeline.executor import Executor, LocalExecutor
from slmops.pipeline.keys import Step, address
from slmops.pipeline.plan.trial import MEASURED, STUDENT, trial_nodes
from slmops.pipeline.run import executor_of, run_graph
from slmops.pipeline.store import Store
from slmops.progress import Evaluated, Progress, Task
from slmops.recipe.load import Written
from slmops.recipe.models import Recipe
from slmops.recipe.trials import LOSS, TuneSettings
from slmops.tasks import figure_names
from slmops.tune.study import Study, Trial


class Stopped(SlmopsError):
    """A trial is not worth going on with."""


@dataclass(frozen=True)
class Tried:
    """What came of a trial: its value, or why it has none."""

    number: int
    value: float | None
    why: str | None = None


@dataclass(frozen=True)
class Trials:
    """Does trials of a study.

    Attributes:
        written: the recipe; a trial has other values in it.
        data_key: key of the rows when the search began; a trial on others would not compare.
    """

    study: Study
    written: Written
    home: Path
    data_key: str
    progress: Progress

    def do(self, trial: Trial) -> Tried:
        """Train and measure a student, or find that both were done.

        Raises:
            Interrupted: the trial stays under way, and is taken up again.
            SlmopsError: the recipe as it is written cannot be trained, or the rows have changed.
        """
        begun = time.monotonic()
        try:
            value = self._value(trial)
        except Interrupted:
            raise
        except Stopped as stop:
            self.study.pruned(trial, str(stop), time.monotonic() - begun)
            return Tried(trial.number, None, str(stop))
        except SlmopsError as error:
            self.study.failed(trial, str(error))
            if trial.written or isinstance(error, RowsChanged):
                raise
            return Tried(trial.number, None, str(error))
        self.study.done(trial, value, time.monotonic() - begun)
        return Tried(trial.number, value)

    def _value(self, trial: Trial) -> float:
        recipe = self.written.recipe({} if trial.written else trial.values)
        assert recipe.tune  # noqa: S101 - there is a search
        steps = address(trial_nodes(recipe), recipe.seed)
        student = steps[[step.node.id for step in steps].index(STUDENT)]
        if data_key(steps) != self.data_key:
            raise RowsChanged(
                "the rows changed while the search went on", hint="start it again: it is another one then"
            )
        nodes = [step.node for step in steps]
        told = _Of(self.progress, f"trial {trial.number}")
        named: dict[str, Any] = {
            "name": f"{recipe.name} trials",
            "resolved_recipe": recipe.resolved(),
            "seed": recipe.seed,
            "home": self.home,
            "progress": told,
        }
        # Before the student others may be trained, whose losses are not the trial's.
        run_graph(nodes[: nodes.index(student.node)], **named, executor=executor_of(recipe))
        try:
            made = run_graph(nodes, **named, executor=_trains(recipe, self._watch(trial))).artifacts
        except Stopped:
            Store(self.home).give_up(student.key)
            raise
        if recipe.tune.figure == LOSS:
            return float(made[STUDENT].metrics["validation_loss"])
        name = figure_of(recipe.tune, figure_names(recipe.task))
        if name not in made[MEASURED].metrics:
            raise BadInput(f"tune.figure: the validation rows say nothing about {name}", hint="take another figure")
        return float(made[MEASURED].metrics[name])

    def _watch(self, trial: Trial) -> Evaluated:
        def evaluated(evaluations: int, loss: float) -> None:
            if self.study.report(trial, evaluations, loss):
                raise Stopped(f"ended early: others did better after {evaluations} evaluations (loss {loss:.3g})")

        return evaluated


def _trains(recipe: Recipe, evaluated: Evaluated) -> Executor:
    """What trains and measures a student."""
    assert recipe.tune  # noqa: S101 - there is a search
    if recipe.executor == "ray":
        return AwayExecutor(recipe.tune.cpus, recipe.tune.gpus, evaluated)
    return LocalExecutor(evaluated=evaluated)


class RowsChanged(BadInput):
    """The rows are no longer those that the search began with."""


def data_key(steps: list[Step]) -> str:
    """The key of the rows in a graph."""
    return next(step.key for step in steps if step.node.id == "data")


def figure_of(tune: TuneSettings, known: list[str]) -> str:
    """What is to be best: the figure that the recipe names, or the task's main one."""
    return tune.figure or known[0]


class _Of:
    """Progress of one trial: its tasks bear its name, and of its notes the warnings are told."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress, self._name = progress, name

    def note(self, text: str) -> None:
        if text.startswith("warning"):
            self._progress.note(f"{self._name}: {text}")

    def task(self, title: str, total: float | None, unit: str) -> AbstractContextManager[Task]:
        return self._progress.task(f"{self._name}: {title}", total, unit)
