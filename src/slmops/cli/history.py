"""`slmops runs`, `show` and `diff`: what happened; `slmops store`: what it left on the disk."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slmops.cli.options import Home, Json, Quiet
from slmops.pipeline.home import HOME

if TYPE_CHECKING:
    from slmops.pipeline.artifact import Figure

Run = Annotated[str, typer.Argument(help="A run's id, the beginning of one, or `last`.")]


def register(app: typer.Typer) -> None:
    app.command("runs")(runs)
    app.command("show")(show)
    app.command("diff")(diff)
    store = typer.Typer(help="See and free what runs left on the disk.", rich_markup_mode=None)
    store.command("size")(store_size)
    store.command("gc")(store_gc)
    store.command("verify")(store_verify)
    app.add_typer(store, name="store")


def runs(as_json: Json = False, home: Home = HOME) -> None:
    """List the runs, the newest first."""
    from slmops.console import duration, fit
    from slmops.pipeline.history import History

    records = History(home).runs()
    if as_json:
        typer.echo(json.dumps({"runs": [_plain(record, without=("recipe", "environment")) for record in records]}))
        return
    if not records:
        typer.echo(f"no runs in {home}", err=True)
    for record in records:
        cached = sum(step.cached for step in record.steps)
        done = sum(step.state == "done" for step in record.steps)
        took = "" if record.seconds is None else duration(record.seconds)
        steps = f"{done}/{len(record.steps)}, {cached} cached"
        typer.echo(f"{record.id}  {fit(record.name, 14):<14} {record.state:<11} {took:>11}  {steps}")


def show(run: Run, as_json: Json = False, home: Home = HOME) -> None:
    """Show a run: its state, its stages and their figures."""
    from slmops.console import duration, fit
    from slmops.pipeline.history import History

    history = History(home)
    record = history.run(run)
    if as_json:
        typer.echo(json.dumps(_plain(record)))
        return
    took = "" if record.seconds is None else f" in {duration(record.seconds)}"
    code = "" if record.exit_code is None else f", exit code {record.exit_code}"
    typer.echo(f"{record.id}  {record.name}: {record.state}{took}{code}")
    if record.error:
        typer.echo(f"error    {record.error}")
    typer.echo(f"started  {record.started[:19].replace('T', ' ')} UTC")
    typer.echo(f"machine  {fit('{cpu}, {cores} cores, Python {python}'.format_map(record.environment), 71)}")
    typer.echo(f"log      {history.folder / record.id / 'run.log'}")
    for step in record.steps:
        seconds = "" if step.seconds is None else duration(step.seconds)
        state = "cached" if step.cached else step.state
        typer.echo(f"\n{fit(step.node, 32):<32} {state:<11} {seconds:>11}  {step.key[:12]}")
        for name, value in step.metrics.items():
            typer.echo(f"  {fit(name, 36):<36} {_figure(value)}")


def diff(first: Run, second: Run, as_json: Json = False, home: Home = HOME) -> None:
    """Show how two runs differ: settings, machine, stages, figures."""
    from slmops.pipeline.compare import compare
    from slmops.pipeline.history import History

    history = History(home)
    before, after = history.run(first), history.run(second)
    difference = compare(before, after)
    if as_json:
        typer.echo(json.dumps({"first": before.id, "second": after.id, **_plain(difference)}))
        return
    same = not (difference.recipe or difference.environment or difference.steps)
    typer.echo(f"{before.id} → {after.id}{': no difference' if same else ''}")
    _print_pairs("recipe", difference.recipe)
    _print_pairs("environment", difference.environment)
    _print_pairs("stages", {node: (_short(a), _short(b)) for node, (a, b) in difference.steps.items()})
    for node, figures in difference.metrics.items():
        _print_pairs(f"figures of {node}", figures)


def store_size(as_json: Json = False, home: Home = HOME) -> None:
    """Show how much room runs take on the disk."""
    from slmops.console import size
    from slmops.pipeline.upkeep import usage

    used = usage(home)
    if as_json:
        typer.echo(json.dumps(_plain(used)))
    else:
        typer.echo(f"{used.artifacts} artifacts  {size(used.artifacts_bytes)}")
        typer.echo(f"unfinished   {size(used.works_bytes)}")
        typer.echo(f"all          {size(used.total_bytes)}")


def store_gc(
    keep_runs: Annotated[
        int | None,
        typer.Option("--keep-runs", min=1, metavar="N", help="Keep what each recipe's last N good runs need, not all."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be freed.")] = False,
    as_json: Json = False,
    home: Home = HOME,
) -> None:
    """Free what no run in the history needs. The history itself stays."""
    from slmops.console import size
    from slmops.pipeline.upkeep import collect

    freed = collect(home, keep_runs=keep_runs, dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps({"dry_run": dry_run, **_plain(freed)}))
    else:
        what = f"{freed.artifacts} artifacts and {freed.works} unfinished stages, {size(freed.size_bytes)}"
        typer.echo(f"would free {what}" if dry_run else f"freed {what}")


def store_verify(
    drop: Annotated[bool, typer.Option("--drop", help="Delete what is damaged: the next run makes it again.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    home: Home = HOME,
) -> None:
    """Check every byte of every artifact."""
    from slmops import console
    from slmops.errors import SlmopsError
    from slmops.pipeline.upkeep import verify

    damaged = verify(home, drop=drop, progress=console.screen(quiet=quiet))
    if as_json:
        typer.echo(json.dumps({"damaged": damaged, "dropped": drop}))
    else:
        for reason in damaged.values():
            typer.echo(f"{'dropped' if drop else 'damaged'}: {reason}")
    if damaged and not drop:
        raise SlmopsError(f"{len(damaged)} artifacts are damaged", hint="slmops store verify --drop")
    if not damaged and not as_json:
        typer.echo("every artifact is whole")


def _plain(record: Any, without: tuple[str, ...] = ()) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(record).items() if name not in without}


def _print_pairs(title: str, pairs: Mapping[str, tuple[Any, Any]]) -> None:
    if not pairs:
        return
    from slmops.console import fit

    typer.echo(f"\n{title}")
    for name, (before, after) in pairs.items():
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (before, after))
        change = f"  ({after - before:+.4g})" if numbers else ""
        typer.echo(fit(f"  {name:<36} {_figure(before)} → {_figure(after)}{change}"))


def _figure(value: Figure | None) -> str:
    if value is None:
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _short(key: str | None) -> str | None:
    return key and key[:12]
