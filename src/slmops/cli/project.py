"""`slmops init` and `slmops doctor`: starting out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from slmops.cli.options import Home, Json
from slmops.pipeline.home import HOME


def register(app: typer.Typer) -> None:
    app.command("init")(init)
    app.command("doctor")(doctor)


def init(
    name: Annotated[Path, typer.Argument(metavar="NAME", help="Folder of the new project.")],
    task: Annotated[
        Literal["extraction", "classification"] | None,
        typer.Option("--task", help="What the model is to do; extraction unless told. Adapters do both."),
    ] = None,
    template: Annotated[
        Literal["distil", "finetune", "adapters"],
        typer.Option(
            "--template",
            help="Learn from a teacher, or from the labelled rows alone: one task, or an adapter for each of several.",
        ),
    ] = "distil",
) -> None:
    """Make a project: a recipe that runs, with sample data to replace by your own."""
    from slmops.samples.project import write_project

    for path in write_project(name, task, template):
        typer.echo(path)
    typer.echo(f"next: slmops run {name / 'recipe.yaml'}", err=True)


def doctor(as_json: Json = False, home: Home = HOME) -> None:
    """Show what this machine has and what is missing. Exit code 2: something required is missing."""
    from slmops.doctor import examine
    from slmops.errors import BadInput

    findings = examine(home)
    if as_json:
        typer.echo(json.dumps({"findings": [dataclasses.asdict(finding) for finding in findings]}))
    else:
        for finding in findings:
            typer.echo(f"{finding.state:<8} {finding.name:<20} {finding.value}")
            if finding.fix:
                typer.echo(f"{'':<29} fix: {finding.fix}")
    if missing := [finding.name for finding in findings if finding.state == "missing"]:
        raise BadInput(f"missing: {', '.join(missing)}", hint="do what `fix` says, then run slmops doctor again")
