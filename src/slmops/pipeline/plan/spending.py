"""What a run would buy, told before it begins."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from slmops.data.stage import pool_rows
from slmops.endpoints.ledger import Ledger
from slmops.pipeline.plan.names import endpoint_of
from slmops.pipeline.store import Store
from slmops.recipe.models import Recipe
from slmops.recipe.task import ClassificationTask, NliTask
from slmops.recipe.teaching import Budget
from slmops.tasks import Task, make_task
from slmops.teach.endpoint import Forecast, Pool, forecast
from slmops.teach.stage_endpoint import LEDGER


def forecast_of(recipe: Recipe, home: Path) -> Forecast | None:
    """What the teacher would be asked at most: the rows of the pool before the run screens them, without those that
    it has answered; None for a teacher that runs here.

    Raises:
        BadInput: the pool or the task's schema cannot be read.
    """
    teacher, path = endpoint_of(recipe), Store(home).kept / LEDGER
    if teacher is None:
        return None
    pool = Pool(teacher, _task(recipe), list(pool_rows(recipe)), recipe.privacy)
    if not path.exists():
        return forecast(pool, ())
    with closing(Ledger(path, Budget())) as ledger:
        return forecast(pool, ledger.answers.find(pool.keys))


def _task(recipe: Recipe) -> Task:
    """The task as it asks: labels that the rows will give are no part of a request."""
    settings = recipe.task
    if isinstance(settings, ClassificationTask | NliTask) and settings.labels is None:
        settings = settings.model_copy(update={"labels": ["one", "other"]})
    return make_task(settings)
