"""A search over a recipe's settings from its first trial to the recipe that is written back."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slmops import child
from slmops.data.read import read_jsonl
from slmops.errors import BadInput
from slmops.pipeline.away import check_room
from slmops.pipeline.cluster import join
from slmops.pipeline.files import storage_errors
from slmops.pipeline.home import HOME
from slmops.pipeline.keys import address
from slmops.pipeline.plan.trial import MEASURED, trial_nodes
from slmops.pipeline.store import Store
from slmops.progress import Progress, Silent
from slmops.recipe.load import Written, checked, read_recipe, value_at
from slmops.recipe.models import Recipe
from slmops.recipe.rewrite import rewritten
from slmops.recipe.trials import LOSS, TuneSettings
from slmops.report.tuned import write_page
from slmops.report.words import lower_is_better
from slmops.tasks import figure_names
from slmops.tune.outcome import outcome
from slmops.tune.study import check_optuna
from slmops.tune.trial import Tried, data_key, figure_of
from slmops.tune.worker import Job, work

_HEAD = "# Written by `slmops tune`: "


def tune(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    trials: int | None = None,
    workers: int = 1,
    home: Path = HOME,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train students with other settings until there are as many as asked for, and write the best recipe down.

    What was tried before counts, whoever ended it and how; see `Study`. The first trial is the recipe as it is written.

    Args:
        trials: how many there are to be in all; None: `tune.trials`.
        workers: trials that are under way at the same time, each by a process of this machine, this one among them;
            with `executor: ray` these wait for the machines of the cluster that train.

    Returns:
        See `slmops.tune.outcome.outcome`; and `recipe` and `page`, the files that were written.

    Raises:
        BadInput: the recipe has nothing to search, or a setting that changes nothing, or a package is missing.
        Interrupted: the same command goes on.
        SlmopsError: from the recipe as it is written, or the database cannot be used.
    """
    written = read_recipe(path, overrides)
    recipe, progress = checked(written), progress or Silent()
    if recipe.tune is None:
        raise BadInput(f"{path} has no `tune`: nothing says what to search", hint="docs/guides/tune.md shows one")
    check_optuna(recipe.tune.storage)
    target = path.with_name(f"{path.stem}.best{path.suffix}")
    _check_target(target)
    figure = _figure(recipe, recipe.tune)
    # Workers that each found no cluster would each make one.
    at = _cluster(recipe.tune) if recipe.executor == "ray" else {}
    job = _job(written, recipe, recipe.tune, figure, home, trials or recipe.tune.trials, workers)
    with storage_errors(home), _others(job, workers - 1, progress, at):
        work(job, progress, lambda tried: progress.note(_said(tried, figure)))
    # What a process left that was killed is still to be done.
    work(job, progress, lambda tried: progress.note(_said(tried, figure)))
    study = job.study()
    about = {"name": recipe.name, "study": job.name, "recipe": str(target)}
    found = outcome(study, recipe, figure=figure, rows=_rows(home, job.data_key), about=about)
    if found["best"] is not None:
        _write_best(target, written, found)
    return found | {"page": str(write_page(Path(job.folder), found))}


def _cluster(tune: TuneSettings) -> dict[str, str]:
    """Where the cluster is that trains, as its environment tells a worker."""
    check_room(tune.cpus, tune.gpus)
    return {"RAY_ADDRESS": join()}


def _figure(recipe: Recipe, tune: TuneSettings) -> str:
    known = figure_names(recipe.task)
    figure = figure_of(tune, known)
    if figure not in (*known, LOSS):
        raise BadInput(f"tune.figure: {figure} is no figure of this task", hint=f"known: {', '.join([*known, LOSS])}")
    return figure


def _job(
    written: Written, recipe: Recipe, tune: TuneSettings, figure: str, home: Path, trials: int, workers: int
) -> Job:
    """The search, called by everything that its values depend on: another recipe or other rows make another one."""
    steps = address(trial_nodes(recipe), recipe.seed)
    keys = {step.node.id: step.key for step in steps}
    _check_space(written, tune)
    space = {name: one.model_dump(mode="json") for name, one in sorted(tune.space.items())}
    shapes = json.dumps([keys[MEASURED], space, figure], sort_keys=True)
    name = f"{recipe.name}-{hashlib.sha256(shapes.encode()).hexdigest()[:12]}"
    job = Job(
        data=dict(written.data),
        recipe_folder=str(written.folder.absolute()),
        home=str(home.absolute()),
        folder=str(home.absolute() / "tune" / name),
        name=name,
        maximise=figure != LOSS and not lower_is_better(figure),
        data_key=data_key(steps),
        trials=trials,
        threads=max(1, len(os.sched_getaffinity(0)) // workers) if workers > 1 and recipe.executor == "local" else 0,
    )
    job.study().write_first({name: value_at(recipe, name) for name in tune.space})
    return job


def _check_space(written: Written, tune: TuneSettings) -> None:
    """Refuse a setting that changes nothing of what is measured: its trials would all be one."""
    for name, space in tune.space.items():
        recipes = [written.recipe({name: value}) for value in space.ends]
        keys = {address(trial_nodes(recipe), recipe.seed)[-1].key for recipe in recipes}
        if len(keys) == 1:
            place = written.places.get(("tune", "space", name), "tune.space")
            raise BadInput(f"{place}: {name} changes nothing of the student", hint="take it out of tune.space")


@contextmanager
def _others(job: Job, count: int, progress: Progress, environment: Mapping[str, str]) -> Iterator[None]:
    """So many processes work on the search beside this one, and are waited for; they end with this one.

    What each of them says is in `<folder>/worker-N.log`.
    """
    folder = Path(job.folder)
    job.write(folder / "job.json")
    started = []
    for number in range(2, count + 2):
        with (folder / f"worker-{number}.log").open("w", encoding="utf-8") as log:
            command = child.command("slmops.tune.worker", str(folder / "job.json"))
            started.append(subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log))  # noqa: S603
    try:
        yield
        for number, process in enumerate(started, 2):
            if code := process.wait():
                progress.note(f"warning: worker {number} ended with {code}: see {folder / f'worker-{number}.log'}")
    finally:
        for process in started:
            process.kill()
            process.wait()


def _said(tried: Tried, figure: str) -> str:
    if tried.value is None:
        return f"trial {tried.number}: {tried.why}"
    return f"trial {tried.number}: {figure} {tried.value:.4g}"


def _rows(home: Path, key: str) -> int:
    data = Store(home).find(key)
    return len(read_jsonl(data.path / "validation.jsonl")) if data else 0


def _check_target(target: Path) -> None:
    """Refuse to write over what somebody else wrote, before anything is trained."""
    if target.exists() and not target.read_text(encoding="utf-8", errors="replace").startswith(_HEAD):
        raise BadInput(f"{target} was not written by `slmops tune`", hint="move it away: the best recipe goes there")


def _write_best(target: Path, written: Written, found: dict[str, Any]) -> None:
    """The recipe's own text with the best values, comments and all; read again before it counts."""
    best = found["best"]
    values = {} if best["written"] else best["values"]
    data = written.with_values(values)
    head = f"{_HEAD}trial {best['number']}, {found['figure']} {best['value']:.4g} on the validation rows.\n"
    text = head + rewritten(written.text, {**written.over, **values}, data)
    Written(data, written.folder).recipe()
    part = target.with_name(target.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(target)
