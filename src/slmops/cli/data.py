"""`slmops data show`: the rows of a recipe, as they are trained on and measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from slmops.cli.options import Home, Json, Overrides
from slmops.cli.run import RecipeFile
from slmops.pipeline.home import HOME

if TYPE_CHECKING:
    from slmops.pipeline.plan.shown import Rendered


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="See what a recipe's rows are.", rich_markup_mode=None, no_args_is_help=True)
    group.command("show")(show)
    app.add_typer(group, name="data")


def show(
    recipe: RecipeFile,
    overrides: Overrides = None,
    side: Annotated[
        Literal["train", "validation", "test", "pool"], typer.Option("--side", help="Which rows are shown.")
    ] = "train",
    rows: Annotated[int, typer.Option("--rows", min=1, metavar="N", help="Show the first N rows.")] = 3,
    rendered: Annotated[
        bool, typer.Option("--rendered", help="As the student reads them: what the loss leaves out is dimmed.")
    ] = False,
    as_json: Json = False,
    home: Home = HOME,
) -> None:
    """Show rows after checks, screening and split, and how many were dropped or added and why. Trains nothing."""
    from slmops.pipeline.plan.shown import shown
    from slmops.recipe import load_recipe

    told = shown(load_recipe(recipe, overrides or ()), side, rows, rendered=rendered, home=home)
    if as_json:
        typer.echo(json.dumps(asdict(told), ensure_ascii=False))
        return
    for row in told.rows if told.rendered is None else ():
        typer.echo(json.dumps(row, ensure_ascii=False))
    for one in told.rendered or ():
        typer.echo(f"{one.id}: {_tokens(one)}")
        typer.echo(_dimmed(one, colour=sys.stdout.isatty()))
    for line in _counted(told.counts):
        typer.echo(line, err=True)


def _tokens(row: Rendered) -> str:
    if row.learned is not None:
        return f"{row.prompt_tokens} tokens of prompt, {row.learned_tokens} learned"
    labelled = f", {row.learned_tokens} of them labelled" if row.learned_tokens else ""
    return f"{row.prompt_tokens} tokens of prompt{labelled}"


def _dimmed(row: Rendered, *, colour: bool) -> str:
    """The row's text. Where there are no shades, what is learned stands between marks."""
    learned = row.learned or ""
    if colour:
        return typer.style(row.prompt, dim=True) + learned
    return row.prompt + (f"⟦{learned}⟧" if learned else "")


def _counted(counts: dict[str, Any]) -> Iterator[str]:
    yield "rows: " + ", ".join(f"{count:,} {side}" for side, count in counts["rows"].items())
    for reason, count in counts["dropped"].items():
        yield f"dropped: {count:,} of {reason}"
    for reason, count in counts["augmented"].items():
        yield f"added: {count:,} of {reason}"
