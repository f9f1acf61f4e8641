"""A model that was made elsewhere, measured on labelled rows and put into a bundle with what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slmops.bundle.write import write_bundle
from slmops.engines import engine_of
from slmops.errors import BadInput
from slmops.evaluate.asking import Asking
from slmops.evaluate.side_by_side import Outcome, evaluate
from slmops.evaluate.subjects import Local
from slmops.pipeline.environment import environment
from slmops.pipeline.files import content_digest
from slmops.progress import Progress
from slmops.recipe.evaluate import Running
from slmops.tasks import Row, Task

SHIPPED = "shipped"
"""What evidence calls the model of a bundle."""


def evaluate_into_bundle(
    model: Path,
    out: Path,
    *,
    name: str,
    version: str,
    task: Task,
    rows: Sequence[Row],
    train: Sequence[Row],
    asking: Asking,
    lineage: Mapping[str, Any],
    home: Path,
    seed: int,
    progress: Progress,
) -> Outcome:
    """Measure the model in `model` on `rows`, beside the trivial floor of `train`, and write a bundle to `out`.

    Args:
        lineage: where it came from; what it was measured on is added.
        home: its answers are kept there, see `slmops.evaluate.side_by_side`.

    Raises:
        BadInput: `out` holds something, the model cannot be run, or the rows are of no use.
        SlmopsError: it answered no row.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out} exists already and is not empty", hint="choose another folder with --out")
    engine = engine_of(model)
    subject = Local(SHIPPED, engine, model, content_digest(model))
    outcome = evaluate(
        [subject],
        task,
        rows,
        train,
        asking,
        running=Running(),
        prices={},
        home=home,
        seed=seed,
        progress=progress,
    )
    write_bundle(
        out,
        name=name,
        version=version,
        engine=engine,
        model_folder=model,
        task=task.describe(),
        lineage={**lineage, "seed": seed, "environment": environment([engine, "tokenizers"])},
        evidence=outcome.evidence,
    )
    return outcome
