"""`slmops tune`: better settings for a recipe."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from slmops.cli.options import Home, Json, Overrides, Quiet
from slmops.cli.run import RecipeFile, confirm
from slmops.pipeline.home import HOME


def register(app: typer.Typer) -> None:
    app.command("tune")(tune)


def tune(
    recipe: RecipeFile,
    overrides: Overrides = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=2, metavar="N", help="Trials in all; the recipe's when absent.")
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", min=1, metavar="K", help="Students that are trained at the same time.")
    ] = 1,
    yes: Annotated[bool, typer.Option("--yes", help="Buy a teacher's answers without asking first.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    home: Home = HOME,
) -> None:
    """Look for better settings, as `tune` of the recipe says, and write the best recipe to RECIPE.best.yaml.

    The first trial is the recipe as it is written. A search that was stopped or killed goes on where it was; with a
    greater N there are more trials.
    """
    from slmops import console
    from slmops.pipeline import run as pipeline
    from slmops.recipe import load_recipe
    from slmops.tune.search import tune as search

    told = pipeline.forecast(load_recipe(recipe, overrides or ()), home=home)
    if told and told.paid and not yes:
        confirm(told)
    progress = console.screen(quiet=quiet)
    found = search(recipe, overrides or (), trials=trials, workers=workers, home=home, progress=progress)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for line in _lines(found):
        typer.echo(line)


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    from slmops.report.tuned import setting
    from slmops.report.words import figure_name, shown

    figure, best, written = found["figure"], found["best"], found["written"]
    states = [one["state"] for one in found["trials"]]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    yield f"{figure_name(figure)} on {found['rows']} validation rows; {len(states)} trials: {counted}"
    if written:
        yield f"  as written  {shown(figure, written['value'])}"
    if best is None:
        return
    yield f"  best        {shown(figure, best['value'])}  trial {best['number']}"
    for name, value in best["values"].items():
        before = f"   as written {setting(written['values'][name])}" if written and not best["written"] else ""
        share = f"   explains {found['importance'][name]:.0%}" if name in found["importance"] else ""
        yield f"    {name:<28} {setting(value)}{before}{share}"
    yield f"best recipe: {found['recipe']}"
    yield f"history and importance: {found['page']}"
