"""docs/cli.md, written from the commands: `python -m slmops.cli.reference [--check] [FILE]`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import typer
from typer.core import TyperGroup

from slmops.cli.main import app
from slmops.generated import keep

INTRODUCTION = """\
<!-- Written by `python -m slmops.cli.reference` from src/slmops/cli/. Do not edit. -->

# The command line

Answers go to stdout, everything else to stderr. With `--json` the answer is one JSON object. A command ends with

| exit code | means |
| --- | --- |
| 0 | done |
| 1 | something unexpected |
| 2 | bad input: recipe, data or arguments |
| 3 | a gate failed |
| 4 | a budget is used up |
| 130 | interrupted; the state is saved |

An error is one line, with a hint what to do next; `--debug` shows the traceback.
"""

_WIDTH = 78
"""Of help on a terminal of 80 columns."""


def reference() -> str:
    """The whole document: what `--help` says of every command."""
    top = typer.Context(typer.main.get_command(app), info_name="slmops", terminal_width=_WIDTH)
    return INTRODUCTION + "".join(_sections(top))


def _sections(context: typer.Context) -> Iterator[str]:
    """A section for the command of `context`, then one for each command below it."""
    yield f"\n## `{context.command_path}`\n\n```text\n{context.get_help()}\n```\n"
    if isinstance(context.command, TyperGroup):
        for name, command in context.command.commands.items():
            yield from _sections(typer.Context(command, info_name=name, parent=context))


if __name__ == "__main__":
    raise SystemExit(keep(reference(), Path("docs/cli.md"), "slmops.cli.reference"))
