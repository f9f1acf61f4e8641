"""`slmops import`: what other systems made."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from slmops.cli.evaluate import Threads
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


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Take what other systems made.", rich_markup_mode=None, no_args_is_help=True)
    group.command("olive")(olive)
    app.add_typer(group, name="import")


def olive(
    output: Annotated[Path, typer.Argument(metavar="DIR", help="What a run of Olive wrote, its `output_dir`.")],
    data: Annotated[Path, typer.Option("--data", metavar="ROWS", help="Labelled rows (JSONL, CSV, Parquet).")],
    task: Annotated[str, typer.Option("--task", metavar="KIND", help="Kind of task, as in a recipe.")],
    out: Annotated[Path, typer.Option("--out", metavar="BUNDLE", help="A folder that is empty or not there yet.")],
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="MODEL", help="Of an adapter, where Olive has not written it beside."),
    ] = None,
    four_bits: Annotated[
        bool, typer.Option("--four-bits", help="The adapter was trained by QLoRA: merge it into values of four bits.")
    ] = False,
    train: Annotated[
        Path | None, typer.Option("--train", metavar="ROWS", help="Labelled rows for the trivial floor and the labels.")
    ] = None,
    schema: Schema = None,
    label: Label = None,
    instruction: Instruction = None,
    text_column: TextColumn = "input",
    answer_column: AnswerColumn = "output",
    limit: FirstRows = None,
    version: Annotated[str, typer.Option("--bundle-version", metavar="VERSION", help="Of the bundle.")] = "0.1.0",
    latency_requests: Annotated[
        int, typer.Option("--latency-requests", min=0, metavar="N", help="Rows timed one by one; 0 times none.")
    ] = 40,
    threads: Threads = 0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the resampling behind intervals.")] = 7,
    as_json: Json = False,
    quiet: Quiet = False,
    home: Home = HOME,
) -> None:
    """Take an adapter or an ONNX model that Olive made, measure it, and write it as a bundle.

    An adapter is merged into its base. Nothing in the folder is run or unpickled, and what is not known is refused.
    """
    from slmops import console
    from slmops.evaluate.asking import Asking
    from slmops.evaluate.bundled import evaluate_into_bundle
    from slmops.evaluate.given import read_given
    from slmops.evaluate.side_table import side_table
    from slmops.export.folder import check_free
    from slmops.olive.output import find_output, take_output
    from slmops.pipeline.files import storage_errors

    check_free(out)
    found, progress = find_output(output), console.screen(quiet=quiet)
    settings = {"kind": task, "schema": schema, "label": label, "instruction": instruction}
    given = {name: value for name, value in settings.items() if value is not None}
    what, rows, known = read_given(data, train, given, (), columns=(text_column, answer_column), limit=limit)
    home.mkdir(parents=True, exist_ok=True)
    with storage_errors(home), tempfile.TemporaryDirectory(dir=home, prefix="import-") as scratch:
        model = Path(scratch) / "model"
        with progress.task(f"take the {found.kind}", None, "") as step:
            take_output(found, model, base=base, four_bits=four_bits)
            step.advance()
        outcome = evaluate_into_bundle(
            model,
            out,
            name=out.resolve().name,
            version=version,
            task=what,
            rows=rows,
            train=known,
            asking=Asking(threads, latency_requests, concurrency=1, retries=0, timeout_s=60.0),
            lineage={"olive": {"kind": found.kind, "files": found.files()}, "base": base},
            home=home,
            seed=seed,
            progress=progress,
        )
    evidence = outcome.evidence
    typer.echo(json.dumps(evidence, ensure_ascii=False) if as_json else side_table(evidence).rstrip())
    if not quiet:
        typer.echo(f"written to {out}", err=True)
