"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Home = Annotated[Path, typer.Option("--home", metavar="DIR", help="Folder of the store and the history.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, as train.epochs=1. Repeatable."),
]

# Where there is no recipe: the task, and where its rows stand in a file.
Schema = Annotated[Path | None, typer.Option("--schema", metavar="FILE", help="Of an extraction.")]
Label = Annotated[str | None, typer.Option("--label", help="Property of an extraction that is a class.")]
Instruction = Annotated[str | None, typer.Option("--instruction", help="System message of every request.")]
TextColumn = Annotated[str, typer.Option("--input", metavar="COLUMN", help="Column with the text.")]
AnswerColumn = Annotated[str, typer.Option("--output", metavar="COLUMN", help="Column with the answer.")]
FirstRows = Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Take the first N rows.")]
