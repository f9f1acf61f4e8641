"""One of the processes that do the trials of a search: `python -m slmops.tune.worker JOB.json`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slmops.console import screen
from slmops.errors import SlmopsError
from slmops.progress import Progress
from slmops.recipe.load import Written
from slmops.tune.study import Study
from slmops.tune.trial import Trials, Tried


@dataclass(frozen=True)
class Job:
    """A search that a process works on.

    Attributes:
        data: the recipe as it was written; see `Written`.
        recipe_folder: where its relative paths are meant from.
        folder, name, maximise: see `Study`.
        trials: how many there are to be.
        threads: that a worker may use; 0 leaves PyTorch its own number.
    """

    data: dict[str, Any]
    recipe_folder: str
    home: str
    folder: str
    name: str
    maximise: bool
    data_key: str
    trials: int
    threads: int = 0

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    def study(self) -> Study:
        """The study, opened, or made with the recipe as it is written as its first trial."""
        recipe = self.written.recipe()
        assert recipe.tune  # noqa: S101 - there is a search
        return Study(Path(self.folder), self.name, recipe.tune, maximise=self.maximise, seed=recipe.seed)

    @property
    def written(self) -> Written:
        return Written(self.data, Path(self.recipe_folder))


def work(job: Job, progress: Progress, tell: Callable[[Tried], None] = lambda _: None) -> None:
    """Do trials until as many are done or under way as there are to be.

    Raises:
        SlmopsError: see `Trials.do`.
    """
    study = job.study()
    trials = Trials(study, job.written, Path(job.home), job.data_key, progress)
    if job.threads:
        import torch

        torch.set_num_threads(job.threads)
    with study.working():
        while trial := study.next(job.trials):
            tell(trials.do(trial))


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        work(Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), screen())
    except SlmopsError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
