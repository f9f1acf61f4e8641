"""`slmops validate`: the checklist over a bundle."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from slmops.cli.bundle import BundleFolder, Threads
from slmops.cli.options import Json, Quiet

_QUICK_SOAK = 200


def register(app: typer.Typer) -> None:
    app.command("validate")(validate)


def validate(
    bundle: BundleFolder,
    rows: Annotated[
        Path | None,
        typer.Option(
            "--rows", metavar="ROWS", help="In-domain queries: rows with `input` and, where known, the right `output`."
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="FOLDER", help="The model that the bundle was made from: checks parity."),
    ] = None,
    soak: Annotated[int, typer.Option("--soak", min=4, metavar="N", help="Requests of the memory check.")] = 2_000,
    quick: Annotated[
        bool, typer.Option("--quick", help="Soak with 200 requests: too few to decide about memory.")
    ] = False,
    threads: Threads = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Go through the checklist before a bundle is served: each line with its figure and bound.

    Domain, format, memory, long and hostile inputs, determinism, parity. Exit code 3: a line failed.
    """
    from slmops import console
    from slmops.errors import GateFailed
    from slmops.evaluate import checklist
    from slmops.evaluate.checklist.table import table

    requests = min(soak, _QUICK_SOAK) if quick else soak
    progress = console.screen(quiet=quiet)
    lines = checklist.validate(bundle, rows=rows, model=model, soak=requests, threads=threads, progress=progress)
    failed = [line for line in lines if line.state == "fail"]
    if as_json:
        typer.echo(json.dumps({"failed": len(failed), "lines": [dataclasses.asdict(line) for line in lines]}))
    else:
        typer.echo(table(lines))
    if failed:
        raise GateFailed("; ".join(f"{line.name}: {line.figure}" for line in failed), hint="see the lines that fail")
