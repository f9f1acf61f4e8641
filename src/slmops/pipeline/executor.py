"""Where a stage's work happens. A stage cannot tell one executor from another."""

from __future__ import annotations

import logging
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel

from slmops.errors import SlmopsError
from slmops.pipeline.artifact import Figure
from slmops.pipeline.stage import Context, Make, Spread, Stage, one_by_one
from slmops.progress import Evaluated, Progress


@dataclass(frozen=True)
class Job:
    """One stage's work as plain text, so that it can be sent to another process or machine with the same files.

    Attributes:
        stage: import path of the stage's class, `package.module:Class`.
        settings_type: import path of the settings' pydantic model.
        settings: the settings as JSON.
        inputs: input name to absolute path.
        out: see `Context.out`; absolute.
        work: see `Context.work`; absolute.
        kept: see `Context.kept`; absolute.
    """

    stage: str
    settings_type: str
    settings: str
    inputs: Mapping[str, str]
    out: str
    work: str
    kept: str
    seed: int


class Executor(Protocol):
    def run(self, job: Job, progress: Progress, log: logging.Logger) -> Mapping[str, Figure]:
        """Do the job and return the stage's figures; whatever the stage raises is raised here."""


@dataclass(frozen=True)
class LocalExecutor:
    """Runs a stage in this process.

    Attributes:
        make: what it may ask for other stages with.
        evaluated: see `Context.evaluated`.
        spread: what does pieces of its work; on a cluster, where there is one.
    """

    make: Make | None = None
    evaluated: Evaluated | None = None
    spread: Spread = one_by_one

    def run(self, job: Job, progress: Progress, log: logging.Logger) -> Mapping[str, Figure]:
        stage: Stage = pkgutil.resolve_name(job.stage)()
        settings_type: type[BaseModel] = pkgutil.resolve_name(job.settings_type)
        context = Context(
            out=Path(job.out),
            work=Path(job.work),
            kept=Path(job.kept),
            seed=job.seed,
            progress=progress,
            log=log,
            spread=self.spread,
        )
        if self.make:
            context = replace(context, make=self.make)
        if self.evaluated:
            context = replace(context, evaluated=self.evaluated)
        inputs = {name: Path(path) for name, path in job.inputs.items()}
        return stage.run(inputs, settings_type.model_validate_json(job.settings), context)


def import_path(kind: type) -> str:
    """`package.module:Class`, by which `kind` can be found again.

    Raises:
        SlmopsError: it cannot, because it is defined inside a function.
    """
    if "<locals>" in kind.__qualname__:
        raise SlmopsError(f"{kind.__qualname__} is defined inside a function, so no executor can find it by name")
    return f"{kind.__module__}:{kind.__qualname__}"
