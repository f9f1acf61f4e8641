"""The rows of a recipe, and the model that it begins from, without a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from slmops.data.stage import prepare_data_node
from slmops.pipeline.keys import Step, address
from slmops.pipeline.plan.names import base_node, fetched_node
from slmops.pipeline.stage import Context, Node
from slmops.pipeline.store import Store
from slmops.recipe.models import Recipe


@contextmanager
def prepared(recipe: Recipe, home: Path) -> Iterator[Path]:
    """The artifact `data`, or the same files made for the length of a block.

    Raises:
        BadInput: see `PrepareData`.
    """
    with _alone(prepare_data_node(recipe), recipe.seed, home) as data:
        yield data


@contextmanager
def prepared_base(recipe: Recipe, home: Path) -> Iterator[Path]:
    """The artifact of the recipe's own model as it comes, likewise.

    Raises:
        BadInput: see `slmops.models.source.materialise`.
    """
    assert recipe.student.model  # noqa: S101 - who calls has a recipe without a teacher
    node = fetched_node(base_node(recipe), recipe.student.model, recipe.student.chat_template)
    with _alone(node, recipe.seed, home) as base:
        yield base


@contextmanager
def _alone(node: Node, seed: int, home: Path) -> Iterator[Path]:
    (step,) = address([node], seed)
    with made(step, Store(home), seed) as artifact:
        yield artifact


@contextmanager
def made(step: Step, store: Store, seed: int = 0) -> Iterator[Path]:
    """The artifact of a step that takes sources alone, or the same files made for the length of a block."""
    if artifact := store.find(step.key):
        yield artifact.path
        return
    with TemporaryDirectory() as folder:
        out, work = Path(folder, "out"), Path(folder, "work")
        out.mkdir()
        step.node.stage().run(step.node.sources, step.node.settings, Context(out=out, work=work, seed=seed))
        yield out
