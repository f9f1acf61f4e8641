"""`slmops run` and `slmops check`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slmops.cli.options import Home, Json, Overrides, Quiet
from slmops.pipeline.home import HOME

if TYPE_CHECKING:
    from slmops.pipeline.run import Planned, RunResult
    from slmops.teach.endpoint import Forecasts

RecipeFile = Annotated[Path, typer.Argument(help="The recipe file.")]


def register(app: typer.Typer) -> None:
    app.command("run")(run)
    app.command("check")(check)


def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the recipe and what would run.")] = False,
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write the gates as JUnit XML.")] = None,
    summary: Annotated[
        Path | None, typer.Option("--summary", metavar="FILE", help="Write a summary in Markdown.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Buy a teacher's answers without asking first.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    home: Home = HOME,
) -> None:
    """Run a recipe from data to report. What was made before is not made again.

    A run that would buy answers of a teacher behind an endpoint says what they cost at most and asks first. Where
    nobody can be asked, it is refused without --yes.

    The files of --junit and --summary are written when a gate fails, too.

    Exit codes: 0 done, 1 unexpected, 2 bad input, 3 a gate failed, 4 budget reached, 130 interrupted.
    """
    from slmops import console
    from slmops.errors import GateFailed
    from slmops.pipeline import run as pipeline
    from slmops.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    copies = {name: path for name, path in (("junit.xml", junit), ("summary.md", summary)) if path}
    _check_copies(copies.values(), dry_run=dry_run, ships=loaded.ships)
    told = pipeline.forecast(loaded, home=home)
    if dry_run:
        _print_plan(loaded.resolved(), pipeline.plan(loaded, home=home), told, as_json)
        return
    if told and told.paid and not yes:
        confirm(told)
    result = pipeline.run(loaded, home=home, progress=console.screen(quiet=quiet))
    for name, path in copies.items():
        path.write_bytes((result.artifacts["parity"].path / name).read_bytes())
    _print_result(result, as_json)
    if result.failed_gates:
        raise GateFailed(_failed(result.failed_gates), hint=f"slmops show {result.id}")


def check(recipe: RecipeFile, overrides: Overrides = None, as_json: Json = False, home: Home = HOME) -> None:
    """Say whether a recipe is valid and its files can be read. Runs nothing."""
    from slmops.pipeline import run as pipeline
    from slmops.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    stages = pipeline.plan(loaded, home=home)
    cached = sum(stage.cached for stage in stages)
    if as_json:
        typer.echo(json.dumps({"recipe": loaded.name, "valid": True, "stages": len(stages), "cached": cached}))
    else:
        what = f"{len(loaded.adapters)} adapters" if loaded.adapters else loaded.task.kind
        typer.echo(f"OK: {loaded.name} ({what}), {len(stages)} stages, {cached} of them cached")


def _check_copies(paths: Iterable[Path], *, dry_run: bool, ships: bool) -> None:
    """What cannot be written at the end of a run must be said before it."""
    from slmops.errors import BadInput

    for path in paths:
        if dry_run:
            raise BadInput("--dry-run makes no result that --junit or --summary could write")
        if not ships:
            raise BadInput("--junit and --summary are about a bundle, and this recipe makes none")
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise BadInput(f"cannot write {path}: {'it is a folder' if path.is_dir() else 'its folder is missing'}")


def confirm(told: Forecasts) -> None:
    """Go on only if somebody says so.

    Raises:
        BadInput: nobody can be asked, or the answer is no.
    """
    from slmops.errors import BadInput

    if not sys.stdin.isatty():
        raise BadInput(f"this run buys answers: {told}", hint="give --yes if it may")
    typer.echo(f"this run buys answers: {told}", err=True)
    if not typer.confirm("buy them?", err=True):
        raise BadInput("nothing was bought", hint="teach.budget caps what is spent")


def _failed(gates: Sequence[str]) -> str:
    if len(gates) == 1:
        return gates[0]
    return "\n".join([f"{len(gates)} gates do not pass", *(f"  {gate}" for gate in gates)])


def _print_plan(recipe: dict[str, Any], stages: list[Planned], told: Forecasts | None, as_json: bool) -> None:
    if as_json:
        steps = [{"node": s.node, "stage": s.stage, "key": s.key, "cached": s.cached} for s in stages]
        buys = {"buys": told.describe()} if told else {}
        typer.echo(json.dumps({"recipe": recipe, "steps": steps, **buys}))
        return
    import yaml

    typer.echo(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
    for stage in stages:
        typer.echo(f"{stage.node:<28} {'cached' if stage.cached else 'would run':<10} {stage.key[:12]}")
    if told:
        typer.echo(f"would ask {told}")


def _print_result(result: RunResult, as_json: bool) -> None:
    if as_json:
        steps = {
            made.node: {"key": made.key, "path": str(made.path), "cached": made.cached, "seconds": made.seconds}
            for made in result.artifacts.values()
        }
        answer = {
            "run": result.id,
            "recipe": result.name,
            "state": "done",
            "exit_code": result.exit_code,
            "seconds": round(result.seconds, 3),
            "log": str(result.log),
            "failed_gates": result.failed_gates,
            "steps": steps,
            "metrics": {node: dict(made.metrics) for node, made in result.artifacts.items()},
        }
        typer.echo(json.dumps(answer))
    elif "report" in result.artifacts:
        typer.echo((result.artifacts["report"].path / "table.txt").read_text(encoding="utf-8").rstrip())
