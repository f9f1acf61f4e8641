"""`slmops regression add`: what failed once is asked in every evaluation from then on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from slmops.cli.bundle import BundleFolder
from slmops.cli.options import Json


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="The regression suite: rows that once failed.", rich_markup_mode=None, no_args_is_help=True
    )
    # Without a callback typer would make the only command the group itself.
    group.callback()(lambda: None)
    group.command("add")(add)
    app.add_typer(group, name="regression")


def add(
    bundle: BundleFolder,
    text: Annotated[str, typer.Argument(help="What was asked.")],
    answer: Annotated[str, typer.Option("--answer", help="What must be answered, as the model should write it.")],
    file: Annotated[Path, typer.Option("--file", metavar="ROWS", help="The suite, a JSONL file; made if missing.")],
    note: Annotated[str | None, typer.Option("--note", help="When it failed, and how.")] = None,
    id: Annotated[str | None, typer.Option("--id", help="Of the row; made from the text when absent.")] = None,
    as_json: Json = False,
) -> None:
    """Add a row to the suite. BUNDLE says what an answer of the task is; it is not asked.

    The recipe's evaluate.regression names the file. Nothing in it is changed or dropped.
    """
    from slmops.bundle import open_bundle
    from slmops.data.regression import add_row

    row = add_row(file, text, answer, open_bundle(bundle, verify=False).task, note=note, id=id)
    if as_json:
        typer.echo(json.dumps(row, ensure_ascii=False))
    else:
        typer.echo(f"{file}: added {row['id']}")
