"""The trials of a search in a database that outlives every process, and which of them are still under way."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.errors import BadInput, SlmopsError
from slmops.pipeline.locks import hold, is_held
from slmops.recipe.trials import Space, TuneSettings

if TYPE_CHECKING:
    import optuna

WRITTEN, WORKER, AGAIN, CUTS, WHY, VALUES, SECONDS = "written", "worker", "again", "cuts", "why", "values", "seconds"
"""What is noted of a trial: that it is the recipe as it is written, who does it, which one that was cut off it repeats
and how often that happened, why it has no value, what it tries as it stands in a recipe, and how long it took."""

MOST_CUTS = 5
"""A trial that is cut off so often is what ends the process, as by taking all memory: it has failed."""

_DRIVER = "postgresql+psycopg"
_BUSY_SECONDS = 60


def check_optuna(storage: str | None) -> None:
    """Refuse where no study can be kept.

    Raises:
        BadInput: a package is not installed.
    """
    for package, wanted in (("optuna", True), ("psycopg", storage is not None)):
        if wanted and find_spec(package) is None:
            raise BadInput(
                f"a search keeps its trials with the package {package}, which is not installed",
                hint="pip install 'slmops[tune]'",
            )


@dataclass(frozen=True)
class Trial:
    """One trial that is under way.

    Attributes:
        number: from 0.
        values: what it tries, by dotted name.
        written: whether it is the recipe as it is written.
    """

    number: int
    values: Mapping[str, Any]
    written: bool
    handle: optuna.Trial


class Study:
    """The trials of one search, which several processes take from.

    `<folder>/study.db` holds them where no PostgreSQL does. A process holds the lock `<folder>/<worker>.lock` while it
    lives, so a trial whose lock is free was cut off. One that another machine began is that machine's to take up.
    """

    def __init__(self, folder: Path, name: str, tune: TuneSettings, *, maximise: bool, seed: int) -> None:
        """Open the study, and make it if it is not there.

        Args:
            folder: of this search on this machine.
            name: of the study; of everything that its values depend on.
            maximise: whether more of the figure is better.

        Raises:
            BadInput: a package is not installed.
            SlmopsError: the database cannot be used.
        """
        check_optuna(tune.storage)
        import optuna

        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.tune, self.maximise, self.seed = folder, tune, maximise, seed
        self.worker = secrets.token_hex(8)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with self._alone():
            self.study = _opened(folder, name, tune, maximise=maximise)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Held by a process for as long as it does trials of this study."""
        # The file stays: by it this machine knows the trials that it began.
        with hold(self.folder / f"{self.worker}.lock"):
            yield

    def write_first(self, values: Mapping[str, Any]) -> None:
        """Make the recipe as it is written the first trial, unless there are trials already.

        Args:
            values: what it has at each name that is searched; a value that cannot be drawn is used all the same.
        """
        known = {name: value for name, value in values.items() if self.tune.space[name].holds(value)}
        with self._alone():
            if not self.study.get_trials(deepcopy=False):
                self._enqueue({WRITTEN: True, VALUES: known})

    def next(self, most: int) -> Trial | None:
        """The next trial; None where `most` are done or under way.

        A trial that was cut off is taken up again first, with the same values, so its training goes on from its last
        checkpoint.
        """
        with self._alone():
            self._take_up()
            if sum(counts(self.trials(), one) for one in self.trials() if not _waits(one)) >= most:
                return None
            return self._asked()

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """All of them, in order."""
        return self.study.get_trials(deepcopy=False)

    def report(self, trial: Trial, evaluations: int, loss: float) -> bool:
        """Note an evaluation of a training; whether the trial is to end here. The recipe as it is written never is: the
        others are compared with it.
        """
        # Whatever the figure is, a lower loss is better; a study has one direction for both.
        trial.handle.report(-loss if self.maximise else loss, evaluations)
        return not trial.written and trial.handle.should_prune()

    def done(self, trial: Trial, value: float, seconds: float) -> None:
        trial.handle.set_user_attr(SECONDS, seconds)
        self.study.tell(trial.handle, value)

    def pruned(self, trial: Trial, why: str, seconds: float) -> None:
        from optuna.trial import TrialState

        trial.handle.set_user_attr(WHY, why)
        trial.handle.set_user_attr(SECONDS, seconds)
        self.study.tell(trial.handle, state=TrialState.PRUNED)

    def failed(self, trial: Trial, why: str) -> None:
        from optuna.trial import TrialState

        trial.handle.set_user_attr(WHY, why)
        self.study.tell(trial.handle, state=TrialState.FAIL)

    def _asked(self) -> Trial:
        begun = len(self.study.get_trials(deepcopy=False))
        # Of every draw another seed: a study that goes on must not begin with the draws that it began with.
        self.study.sampler = _sampler(self.tune, self.seed + 1_000_003 * begun)
        handle = self.study.ask()
        handle.set_user_attr(WORKER, self.worker)
        values = handle.user_attrs.get(VALUES)
        if values is None:
            values = {name: value_of(of, _suggested(handle, name, of)) for name, of in self.tune.space.items()}
            handle.set_user_attr(VALUES, values)
        else:
            for name in values:
                _suggested(handle, name, self.tune.space[name])
        return Trial(handle.number, values, bool(handle.user_attrs.get(WRITTEN)), handle)

    def _enqueue(self, noted: Mapping[str, Any]) -> None:
        drawn = {name: drawn_as(self.tune.space[name], value) for name, value in noted.get(VALUES, {}).items()}
        self.study.enqueue_trial(drawn, user_attrs=dict(noted))

    def _take_up(self) -> None:
        """Put the trials that were cut off back in the queue, each once however often this is cut off itself."""
        from optuna.trial import TrialState

        trials = self.trials()
        repeated = {one.user_attrs.get(AGAIN) for one in trials}
        for one in trials:
            if one.state != TrialState.RUNNING or not self._cut_off(one.user_attrs.get(WORKER)):
                continue
            cuts = one.user_attrs.get(CUTS, 0) + 1
            if one.number not in repeated and cuts < MOST_CUTS:
                noted = {name: one.user_attrs[name] for name in (WRITTEN, VALUES) if name in one.user_attrs}
                self._enqueue({**noted, AGAIN: one.number, CUTS: cuts})
            self.study.tell(one.number, state=TrialState.FAIL)

    def _cut_off(self, worker: str | None) -> bool:
        """Whether who does a trial is dead. Where the file is this machine's own, all that are alive hold a lock."""
        if worker is None:
            return self.tune.storage is None
        path = self.folder / f"{worker}.lock"
        return not is_held(path) and (self.tune.storage is None or path.exists())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time counts trials and begins one."""
        with hold(self.folder / "study.lock", on_wait=lambda: None):
            yield


def counts(trials: list[optuna.trial.FrozenTrial], one: optuna.trial.FrozenTrial) -> bool:
    """Whether a trial is one of those asked for: one that was cut off and is repeated is not."""
    return all(other.user_attrs.get(AGAIN) != one.number for other in trials)


def value_of(space: Space, drawn: Any) -> Any:
    """What stands in a recipe for what was drawn: a choice as it is, a number with the three digits that one reads."""
    if space.choices is not None:
        return json.loads(drawn)
    if space.whole or space.step is not None:
        return drawn
    return min(max(float(f"{drawn:.3g}"), float(space.low or 0)), float(space.high or 0))


def drawn_as(space: Space, value: Any) -> Any:
    """What would be drawn for a value of a recipe."""
    return json.dumps(value, sort_keys=True) if space.choices is not None else value


def _waits(one: optuna.trial.FrozenTrial) -> bool:
    return one.state.name == "WAITING"


def _suggested(handle: optuna.Trial, name: str, space: Space) -> Any:
    if space.choices is not None:
        return handle.suggest_categorical(name, space.written_choices)
    if space.whole:
        step = 1 if space.step is None else int(space.step)
        return handle.suggest_int(name, int(space.low or 0), int(space.high or 0), step=step, log=space.log)
    low, high = float(space.low or 0), float(space.high or 0)
    return handle.suggest_float(name, low, high, step=space.step, log=space.log)


def _sampler(tune: TuneSettings, seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    made = optuna.samplers.TPESampler if tune.sampler == "tpe" else optuna.samplers.RandomSampler
    return made(seed=seed % 2**32)


def _opened(folder: Path, name: str, tune: TuneSettings, *, maximise: bool) -> optuna.Study:
    import optuna
    import sqlalchemy

    pruners: Mapping[str | None, optuna.pruners.BasePruner] = {
        "median": optuna.pruners.MedianPruner(),
        "halving": optuna.pruners.SuccessiveHalvingPruner(reduction_factor=3),
        None: optuna.pruners.NopPruner(),
    }
    if tune.storage is None:
        url, options = f"sqlite:///{folder / 'study.db'}", {"connect_args": {"timeout": _BUSY_SECONDS}}
    else:
        url, options = tune.storage.replace("postgresql", _DRIVER, 1), {}
    try:
        return optuna.create_study(
            storage=optuna.storages.RDBStorage(url, engine_kwargs=options),
            study_name=name,
            direction="maximize" if maximise else "minimize",
            pruner=pruners[tune.prune],
            load_if_exists=True,
        )
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
        where = tune.storage or folder / "study.db"
        raise SlmopsError(
            f"{where}: {str(error).splitlines()[0]}", hint="see that the database can be reached and written"
        ) from None
