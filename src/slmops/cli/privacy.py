"""`slmops privacy show` and `log`: what would leave this machine, and what has."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slmops.cli.options import Home, Json, Overrides
from slmops.cli.run import RecipeFile
from slmops.pipeline.home import HOME

if TYPE_CHECKING:
    from slmops.pipeline.plan.preview import Shown


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="See what would leave this machine, and what has.", rich_markup_mode=None, no_args_is_help=True
    )
    group.command("show")(show)
    group.command("log")(log)
    app.add_typer(group, name="privacy")


def show(
    recipe: RecipeFile,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option("--rows", min=1, metavar="N", help="Take the first N rows of the pool.")] = 10,
    as_json: Json = False,
) -> None:
    """Show what the recipe's `privacy` takes out of the pool. Sends nothing, and prints the values themselves."""
    from slmops.console import fit
    from slmops.pipeline.plan.preview import destinations, preview
    from slmops.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    asked, shown = destinations(loaded), preview(loaded, rows)
    total = sum((Counter(one.counts) for one in shown), Counter[str]())
    if as_json:
        goes = [{"who": who, "base_url": where, "local": local} for who, where, local in asked]
        told = {"endpoints": goes, "egress": loaded.privacy.egress, "counts": dict(sorted(total.items()))}
        typer.echo(json.dumps({**told, "rows": [one.describe() for one in shown]}, ensure_ascii=False))
        return
    for one in shown:
        _print_row(one)
    typer.echo(fit(f"{len(shown)} rows, {total.total()} values taken out{_told(total)}"))
    for who, where, local in asked:
        typer.echo(fit(f"{who} at {where}: {'this machine, sees rows as they are' if local else 'sees placeholders'}"))
    if not asked:
        typer.echo("this recipe asks no endpoint, so no text leaves this machine")


def log(
    rows: Annotated[int, typer.Option("--rows", min=1, metavar="N", help="Show the last N requests.")] = 20,
    as_json: Json = False,
    home: Home = HOME,
) -> None:
    """Show the requests that left this machine: when, to whom, how large, what was taken out.

    A line was written before its request left. --json gives the digest of each body as well.
    """
    from slmops.console import fit
    from slmops.privacy.audit import EGRESS, read_log

    path = home / "kept" / EGRESS
    found, damaged = read_log(path)
    if as_json:
        typer.echo(json.dumps({"requests": found[-rows:], "in_all": len(found), "damaged": damaged}))
        return
    if damaged:
        typer.echo(f"{damaged} lines of {path} cannot be read", err=True)
    if not found:
        typer.echo(f"nothing has left this machine from {home}", err=True)
        return
    for line in found[-rows:]:
        typer.echo(_line(line))
    whole = sum((Counter(line["redacted"]) for line in found), Counter[str]())
    typer.echo(fit(f"{len(found)} requests, {whole.total()} values taken out{_told(whole)}"))


def _print_row(row: Shown) -> None:
    from slmops.console import fit

    typer.echo(fit(f"{row.id}: {row.text}"))
    for placeholder, value in row.values.items():
        typer.echo(f"  {fit(placeholder, 20):<20} {fit(value, 57)}")


def _line(line: Mapping[str, Any]) -> str:
    """`2026-11-26 18:02:11  api.example.com  teacher big  1.2 kB  2 email, 1 phone`, in 80 columns."""
    from slmops.console import fit, size

    when, out = line["time"][:19].replace("T", " "), Counter(line["redacted"])
    told = ", ".join(f"{count} {kind}" for kind, count in out.items()) or "nothing taken out"
    return f"{when}  {fit(line['host'], 16):<16} {fit(line['who'], 12):<12} {size(line['bytes']):>8}  {fit(told, 19)}"


def _told(counts: Counter[str]) -> str:
    return ": " + ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) if counts else ""
