"""`slmops evaluate` and `slmops harness`: models side by side, and standard benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from slmops.cli.options import (
    AnswerColumn,
    FirstRows,
    Home,
    Instruction,
    Json,
    Label,
    Quiet,
    Schema,
    TextColumn,
)
from slmops.pipeline.home import HOME

Threads = Annotated[int, typer.Option("--threads", min=0, help="Threads of local engines; 0 takes all cores.")]


def register(app: typer.Typer) -> None:
    app.command("evaluate")(evaluate)
    app.command("harness")(harness)


def evaluate(
    subjects: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL_OR_BUNDLE_OR_ENDPOINT...",
            help="A folder, wheel:NAME, or http://HOST/v1#MODEL; NAME= before it names it. The others are held "
            "against the first.",
        ),
    ],
    data: Annotated[Path, typer.Option("--data", metavar="ROWS", help="Labelled rows (JSONL, JSON, CSV, Parquet).")],
    train: Annotated[
        Path | None, typer.Option("--train", metavar="ROWS", help="Labelled rows for the trivial floor and the labels.")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", metavar="KIND", help="Kind of task; the bundle's own when absent.")
    ] = None,
    schema: Schema = None,
    label: Label = None,
    instruction: Instruction = None,
    text_column: TextColumn = "input",
    answer_column: AnswerColumn = "output",
    limit: FirstRows = None,
    latency_requests: Annotated[
        int, typer.Option("--latency-requests", min=0, metavar="N", help="Rows timed one by one; 0 times none.")
    ] = 40,
    threads: Threads = 0,
    key_env: Annotated[
        list[str] | None,
        typer.Option(
            "--key-env",
            metavar="[HOST=]VARIABLE",
            help="Environment variable with the key of endpoints (at HOST). Repeatable.",
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Requests to an endpoint at once.")] = 8,
    retries: Annotated[int, typer.Option("--retries", min=0, help="Further tries of a failed request.")] = 4,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="Of one request.")] = 60.0,
    price: Annotated[
        list[str] | None,
        typer.Option(
            "--price",
            metavar="NAME=READ,WRITTEN",
            help="What a subject's answers cost where they are bought, in USD per million tokens. Repeatable.",
        ),
    ] = None,
    usd_per_hour: Annotated[
        float | None, typer.Option("--usd-per-hour", min=0, help="Price of this machine; no money is given without.")
    ] = None,
    watts_per_core: Annotated[
        float, typer.Option("--watts-per-core", min=0.1, help="Estimates energy where no counter can be read.")
    ] = 5.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the resampling behind intervals.")] = 7,
    privacy: Annotated[
        Path | None,
        typer.Option("--privacy", metavar="RECIPE", help="The recipe whose `privacy` holds; else its defaults do."),
    ] = None,
    redact: Annotated[
        bool, typer.Option("--redact/--no-redact", help="Take personal data out of what leaves this machine.")
    ] = True,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for evidence.json, the report and the answers.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    home: Home = HOME,
) -> None:
    """Compare models, bundles and endpoints on the same rows, without a recipe.

    Answers are kept below --home and never asked for twice. Exit code 1: an endpoint failed midway; what it answered
    is kept and compared, marked as partial, and the same command goes on from there.
    """
    from slmops import console
    from slmops.errors import SlmopsError
    from slmops.evaluate.asking import Asking
    from slmops.evaluate.given import read_given, read_keys, read_prices, read_privacy
    from slmops.evaluate.side_by_side import evaluate as compare
    from slmops.evaluate.side_by_side import write_outcome
    from slmops.evaluate.side_table import side_table
    from slmops.evaluate.subjects import find_subjects
    from slmops.pipeline.files import content_digest, storage_errors
    from slmops.recipe.evaluate import Running
    from slmops.report.story import Story
    from slmops.report.write import write_report

    progress = console.screen(quiet=quiet)
    settings = {"kind": task, "schema": schema, "label": label, "instruction": instruction}
    given = {name: value for name, value in settings.items() if value is not None}
    with storage_errors(home):
        found = find_subjects(subjects, models=home / "models", keys=read_keys(key_env or ()), progress=progress)
        columns = (text_column, answer_column)
        what, rows, known = read_given(data, train, given, found, columns=columns, limit=limit)
        prices = read_prices(price or (), found)
        running = Running(watts_per_core=watts_per_core, machine_usd_per_hour=usd_per_hour)
        asking = Asking(threads, latency_requests, concurrency, retries, timeout, read_privacy(privacy, redact))
        outcome = compare(
            *(found, what, rows, known, asking),
            running=running,
            prices=prices,
            home=home,
            seed=seed,
            progress=progress,
        )
        about = {
            "subjects": {subject.name: subject.describe() for subject in found},
            "data": {"file": data.name, "digest": content_digest(data), "rows": len(rows)},
            "seed": seed,
        }
        place = out or home / "evaluations" / content_digest(data)[:12]
        table = side_table(outcome.evidence)
        write_outcome(place, outcome)
        write_report(place, Story(data.stem, outcome.evidence, table=table), about)
    typer.echo(json.dumps(outcome.evidence, ensure_ascii=False) if as_json else table.rstrip())
    if not quiet:
        typer.echo(f"written to {place}", err=True)
    if outcome.problem:
        done = f"{outcome.evidence['n_test']} of {len(rows)} rows"
        raise SlmopsError(f"{outcome.problem}; {done} are compared", hint="the same command goes on from there")


def harness(
    model: Annotated[str, typer.Argument(metavar="MODEL_OR_BUNDLE", help="A folder or wheel:NAME.")],
    tasks: Annotated[str, typer.Option("--tasks", metavar="TASK[,TASK]", help="Names of lm-evaluation-harness tasks.")],
    include: Annotated[
        Path | None, typer.Option("--include", metavar="DIR", help="Folder with task files of your own.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Rows per task.")] = None,
    threads: Threads = 0,
    as_json: Json = False,
    quiet: Quiet = False,
    home: Home = HOME,
) -> None:
    """Run standard benchmarks of lm-evaluation-harness on a model or bundle. Needs `pip install slmops[lm-eval]`."""
    from slmops import console
    from slmops.evaluate.harness import run, shown
    from slmops.evaluate.subjects import find_local

    progress = console.screen(quiet=quiet)
    subject = find_local(model, models=home / "models", progress=progress)
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    results = run(subject, names, include=include, limit=limit, threads=threads, progress=progress)
    typer.echo(json.dumps(results, ensure_ascii=False) if as_json else shown(results))
