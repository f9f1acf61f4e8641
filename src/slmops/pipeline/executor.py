"""Where a stage's work happens. A stage cannot tell one executor from another."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from slmops.pipeline.artifact import Figure
from slmops.pipeline.job import Job
from slmops.pipeline.stage import Make, Spread, Together, one_by_one
from slmops.pipeline.together import do_together
from slmops.progress import Evaluated, Progress


class Executor(Protocol):
    def run(self, job: Job, progress: Progress, log: logging.Logger) -> Mapping[str, Figure]:
        """Do the job and return the stage's figures; whatever the stage raises is raised here."""


@dataclass(frozen=True)
class LocalExecutor:
    """Runs a stage in this process, or in several of this machine where its settings ask for them.

    Attributes:
        make: what it may ask for other stages with.
        evaluated: see `Context.evaluated`.
        spread: what does pieces of its work; on a cluster, where there is one.
    """

    make: Make | None = None
    evaluated: Evaluated | None = None
    spread: Spread = one_by_one

    def run(self, job: Job, progress: Progress, log: logging.Logger) -> Mapping[str, Figure]:
        settings = job.read_settings()
        if isinstance(settings, Together) and settings.processes > 1:
            return do_together(job, settings.processes, progress, evaluated=self.evaluated)
        return job.do(progress, log, make=self.make, evaluated=self.evaluated, spread=self.spread)
