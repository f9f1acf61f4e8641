"""The rows and the models of a recipe without a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from slmops.data.stage import PrepareData, prepare_data_node
from slmops.models.stage import Fetch
from slmops.pipeline.keys import Step, address
from slmops.pipeline.stage import Context
from slmops.pipeline.store import Store
from slmops.recipe.models import Recipe


@contextmanager
def prepared(recipe: Recipe, home: Path) -> Iterator[Path]:
    """The artifact `data`, or the same files made for the length of a block.

    Raises:
        BadInput: see `PrepareData`.
    """
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


@contextmanager
def fetched(step: Step, store: Store) -> Iterator[Path]:
    """The artifact of a model as it comes, or the same files made for the length of a block."""
    if artifact := store.find(step.key):
        yield artifact.path
        return
    with TemporaryDirectory() as folder:
        out = Path(folder, "out")
        out.mkdir()
        Fetch().run(step.node.sources, step.node.settings, Context(out=out, work=Path(folder), seed=0))  # type: ignore[arg-type]
        yield out
