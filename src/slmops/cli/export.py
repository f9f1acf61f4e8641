"""`slmops export`: what other systems take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slmops.cli.options import Home, Overrides
from slmops.cli.run import RecipeFile
from slmops.pipeline.home import HOME

Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="A folder that is empty or not there yet.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Write what other systems take.", rich_markup_mode=None, no_args_is_help=True)
    group.callback()(_group)
    group.command("azure-distillation")(azure_distillation)
    app.add_typer(group, name="export")


def _group() -> None:
    """A group of one command stays a group."""


def azure_distillation(
    recipe: RecipeFile,
    out: Out,
    student: Annotated[
        str,
        typer.Option("--student", metavar="ID", help="What Azure trains: azureml://registries/R/models/M/versions/V."),
    ],
    overrides: Overrides = None,
    home: Home = HOME,
) -> None:
    """Write a recipe's distillation as a job of Azure Machine Learning. Sends nothing, and holds no key.

    The teacher must be behind an endpoint, and the task one that Azure distils: nli, qa, maths, summarisation or
    conversation.
    """
    from slmops.export.azure_distillation import DistillationJob
    from slmops.pipeline.plan.rows import prepared
    from slmops.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    job = DistillationJob(loaded, student, out)
    with prepared(loaded, home) as data:
        files, notes = job.write(data)
    for path in files:
        typer.echo(path)
    for note in notes:
        typer.echo(note, err=True)
    typer.echo(f"next: {out / 'README.md'}", err=True)
