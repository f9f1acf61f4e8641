"""What a run would buy, told before it begins."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from slmops.data.read import read_jsonl
from slmops.data.stage import pool_rows
from slmops.endpoints.ledger import Ledger
from slmops.endpoints.money import Cost
from slmops.pipeline.plan.names import routed_combination, routes_of
from slmops.pipeline.plan.rows import prepared
from slmops.pipeline.store import Store
from slmops.recipe.models import Recipe
from slmops.recipe.task import ClassificationTask, NliTask
from slmops.recipe.teachers import EndpointTeacher
from slmops.recipe.teaching import LABEL, Budget
from slmops.tasks import Row, Task, make_task, task_of
from slmops.teach.asking import Remote
from slmops.teach.endpoint import Forecasts, Pool, forecast
from slmops.teach.foretold import Find, foretell, foretell_judging
from slmops.teach.paying import LEDGER
from slmops.teach.routing import by_field
from slmops.teach.stage_write import SIDES


def forecast_of(recipe: Recipe, home: Path) -> Forecasts | None:
    """What the teachers would be asked at most: the rows of the pool before the run screens them, without those that
    they have answered; None where all run here.

    Where the first writes more than answers, the rows are prepared for that, as what it is shown follows from them.
    Where rows are routed by what the first answers, each of the others is taken to answer all.

    Raises:
        BadInput: the rows or the task's schema cannot be read, or see `PrepareData` where it writes.
    """
    path = Store(home).kept / LEDGER
    if not recipe.endpoints:
        return None
    if not path.exists():
        return _forecasts(recipe, home, lambda _keys: {})
    with closing(Ledger(path, Budget())) as ledger:
        return _forecasts(recipe, home, ledger.answers.find)


def _forecasts(recipe: Recipe, home: Path, find: Find) -> Forecasts:
    task, beside, rows = _rows(recipe, home, find)
    pools = {
        n: Pool(teacher, task, _rows_of(recipe, n, rows), recipe.privacy)
        for n, teacher in recipe.answering
        if isinstance(teacher, EndpointTeacher)
    }
    user = recipe.user if isinstance(recipe.user, EndpointTeacher) else None
    # It is the first teacher that writes, with whoever plays the user.
    before = {1: (beside, user)}
    told = [
        forecast(pool, find(pool.keys), *before.get(n, (None, None)), at_most=_at_most(recipe))
        for n, pool in pools.items()
    ]
    if isinstance(recipe.judge, EndpointTeacher):
        judge, here = Remote(recipe.judge, recipe.privacy), len(recipe.answering) - len(pools)
        told.append(foretell_judging(judge, [*pools.values()], here, task, rows, find, recipe.seed))
    return Forecasts(told)


def _rows(recipe: Recipe, home: Path, find: Find) -> tuple[Task, Cost, list[Row]]:
    """The task as it asks, what the first teacher is to write before and costs at most, and the pool as it may be."""
    written = [part for part in (recipe.teach.write, recipe.teach.converse, recipe.teach.reason) if part]
    if not written:
        return _task(recipe), Cost(), list(pool_rows(recipe))
    with prepared(recipe, home) as data:
        task, sides = task_of(data), {side: read_jsonl(data / f"{side}.jsonl") for side in SIDES}
    if isinstance(recipe.teacher, EndpointTeacher):
        return task, *foretell(Remote(recipe.teacher, recipe.privacy), written, task, sides, find, recipe.seed)
    # What a teacher writes that runs here costs nothing; its rows may be as long as anyone's.
    anyone = Remote(recipe.endpoints[0], recipe.privacy)
    _, rows = foretell(anyone, written, task, sides, lambda _keys: {}, recipe.seed)
    return task, Cost(), rows


def _at_most(recipe: Recipe) -> int | None:
    """Rows that are asked for at most; None for all."""
    select = recipe.teach.select
    return select.first + select.rounds * select.rows if select else None


def _rows_of(recipe: Recipe, n: int, rows: list[Row]) -> list[Row]:
    """The rows that the teacher of number `n` answers, as far as that is known before the run."""
    combine, pool = routed_combination(recipe), recipe.data.pool
    if combine is None or combine.by == LABEL or pool is None:
        return rows
    routes = routes_of(recipe, combine)
    task, column = recipe.task, recipe.data.input
    teachers = by_field(pool, routes, input=column, kind=task.kind, instruction=task.instruction)
    return [row for row in rows if teachers.get(row["id"]) == n]


def _task(recipe: Recipe) -> Task:
    """The task as it asks: labels that the rows will give are no part of a request."""
    settings = recipe.task
    if isinstance(settings, ClassificationTask | NliTask) and settings.labels is None:
        settings = settings.model_copy(update={"labels": ["one", "other"]})
    return make_task(settings)
