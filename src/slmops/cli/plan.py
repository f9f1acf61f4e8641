"""`slmops plan`: what a training needs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slmops.cli.options import Home, Json, Overrides
from slmops.pipeline.home import HOME

if TYPE_CHECKING:
    from slmops.pipeline.plan.needs import Training


def register(app: typer.Typer) -> None:
    app.command("plan")(plan)


def plan(
    recipe: Annotated[Path, typer.Argument(help="The recipe file.")],
    overrides: Overrides = None,
    as_json: Json = False,
    home: Home = HOME,
) -> None:
    """Say what trainings will move, hold and take, and what they took where they have run. Trains nothing.

    Told are the steps that train a model as it comes on the labelled rows. Time is a lower bound: that of the products
    of matrices.
    """
    from slmops.pipeline.plan.needs import trainings
    from slmops.recipe import load_recipe

    told = trainings(load_recipe(recipe, overrides or ()), home)
    if as_json:
        typer.echo(json.dumps({"trainings": [training.describe() for training in told]}))
        return
    for training in told:
        for line in _lines(training):
            typer.echo(line)


def _lines(training: Training) -> Iterator[str]:
    from slmops.console import duration, size

    expected, took = training.forecast, training.figures
    share = expected.trainable / expected.parameters
    yield f"{training.node} ({training.method})"
    yield f"  moves   {expected.trainable:,} of {expected.parameters:,} weights ({share:.2%})"
    parts = ", ".join(f"{name} {size(count)}" for name, count in asdict(expected.memory).items() if count)
    each = f" in each of {expected.processes} processes" if expected.processes > 1 else ""
    yield f"  memory  {size(expected.memory.total)}{each}: {parts}"
    yield f"          {expected.choices}"
    if expected.refused:
        yield f"          does not fit: {expected.refused}"
    if "peak_memory_bytes" in took:
        yield f"          {size(int(took['peak_memory_bytes']))} measured"
    yield (
        f"  time    {duration(expected.seconds)} or more, for {expected.tokens:,} tokens in {expected.steps:,} steps "
        f"in {expected.precision}"
    )
    if "train_seconds" in took:
        yield f"          {duration(float(took['train_seconds']))} measured"
