"""What a run would buy, told before it begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from slmops.data.read import read_jsonl
from slmops.data.stage import PrepareData, pool_rows, prepare_data_node
from slmops.endpoints.ledger import Ledger
from slmops.endpoints.money import Cost
from slmops.pipeline.keys import address
from slmops.pipeline.plan.names import endpoint_of
from slmops.pipeline.stage import Context
from slmops.pipeline.store import Store
from slmops.recipe.models import Recipe
from slmops.recipe.task import ClassificationTask, NliTask
from slmops.recipe.teaching import Budget
from slmops.recipe.training import EndpointTeacher
from slmops.tasks import Task, make_task, task_of
from slmops.teach.asking import Remote
from slmops.teach.endpoint import Forecast, Pool, forecast
from slmops.teach.foretold import Find, foretell
from slmops.teach.paying import LEDGER
from slmops.teach.stage_write import SIDES


def forecast_of(recipe: Recipe, home: Path) -> Forecast | None:
    """What the teacher would be asked at most: the rows of the pool before the run screens them, without those that
    it has answered; None for a teacher that runs here.

    Where it writes more than answers, the rows are prepared for that, as what it is shown follows from them.

    Raises:
        BadInput: the rows or the task's schema cannot be read, or see `PrepareData` where it writes.
    """
    teacher, path = endpoint_of(recipe), Store(home).kept / LEDGER
    if teacher is None:
        return None
    if not path.exists():
        return _forecast(recipe, teacher, home, lambda _keys: {})
    with closing(Ledger(path, Budget())) as ledger:
        return _forecast(recipe, teacher, home, ledger.answers.find)


def _forecast(recipe: Recipe, teacher: EndpointTeacher, home: Path, find: Find) -> Forecast:
    written = [part for part in (recipe.teach.write, recipe.teach.converse, recipe.teach.reason) if part]
    if written:
        with _prepared(recipe, home) as data:
            task, sides = task_of(data), {side: read_jsonl(data / f"{side}.jsonl") for side in SIDES}
        beside, rows = foretell(Remote(teacher, recipe.privacy), written, task, sides, find, recipe.seed)
    else:
        task, beside, rows = _task(recipe), Cost(), list(pool_rows(recipe))
    pool = Pool(teacher, task, rows, recipe.privacy)
    select = recipe.teach.select
    at_most = select.first + select.rounds * select.rows if select else None
    return forecast(pool, find(pool.keys), beside, at_most=at_most)


@contextmanager
def _prepared(recipe: Recipe, home: Path) -> Iterator[Path]:
    """The artifact `data`, or the same files made for the length of a block."""
    node = prepare_data_node(recipe)
    (step,) = address([node], recipe.seed)
    if artifact := Store(home).find(step.key):
        yield artifact.path
        return
    with TemporaryDirectory() as folder:
        out, work = Path(folder, "out"), Path(folder, "work")
        out.mkdir()
        PrepareData().run(node.sources, node.settings, Context(out=out, work=work, seed=recipe.seed))  # type: ignore[arg-type]
        yield out


def _task(recipe: Recipe) -> Task:
    """The task as it asks: labels that the rows will give are no part of a request."""
    settings = recipe.task
    if isinstance(settings, ClassificationTask | NliTask) and settings.labels is None:
        settings = settings.model_copy(update={"labels": ["one", "other"]})
    return make_task(settings)
