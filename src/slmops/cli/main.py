"""The command line: its groups, and how a command ends."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from slmops.cli import (
    adapters,
    bundle,
    compress,
    data,
    datacard,
    evaluate,
    export,
    history,
    importing,
    plan,
    privacy,
    project,
    regression,
    run,
    serve,
    tune,
    validate,
)
from slmops.errors import SlmopsError

# Without rich, help needs half the time and reads the same on every terminal.
app = typer.Typer(
    help="Small Language Model Operations: distil, compress, prove and ship a model for one task.",
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for group in (
    project,
    run,
    plan,
    tune,
    compress,
    evaluate,
    history,
    data,
    datacard,
    bundle,
    serve,
    validate,
    regression,
    privacy,
    export,
    adapters,
    importing,
):
    group.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        typer.echo(f"slmops {metadata.version('slmops')}")
        raise typer.Exit


@app.callback()
def _globals(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """`main` looks for --debug itself, to know of it even when the arguments cannot be parsed."""


def main() -> None:
    """Run the command line and end the process with the exit code of what happened."""
    # Libraries draw bars of their own over ours; tqdm reads this when it is first imported.
    os.environ.setdefault("TQDM_DISABLE", "1")
    # A thread that spins while it waits takes a shared core from the thread it waits for: on a busy two-core machine
    # a request to a PyTorch model took 8 s that way and 1.5 s without. OpenMP reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    arguments, debug = _debug_first(sys.argv[1:] or ["--help"])
    try:
        code = app(arguments, standalone_mode=False)
    except Exception as error:
        if debug:
            traceback.print_exception(error)
        code = _complain(error)
    sys.exit(code)


def _debug_first(arguments: list[str]) -> tuple[list[str], bool]:
    """`--debug` may stand anywhere before `--`, as in `slmops run recipe.yaml --debug`."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    others = [argument for argument in arguments[:end] if argument != "--debug"]
    debug = len(others) < end
    return ["--debug"] * debug + others + arguments[end:], debug


def _complain(error: Exception) -> int:
    """Say on stderr what is wrong and what to do next; returns the exit code."""
    hint: str | None
    if isinstance(error, typer.TyperException):
        command = getattr(getattr(error, "ctx", None), "command_path", "slmops")
        message, hint, code = error.format_message(), f"{command} --help", error.exit_code
    elif isinstance(error, SlmopsError):
        message, hint, code = str(error), error.hint, error.exit_code
    else:
        where = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        message = f"unexpected {type(error).__name__}: {error}{where}"
        hint, code = "run again with --debug for the traceback", 1
    if message:
        typer.secho(f"error: {message}", fg="red", err=True)
        if hint:
            typer.echo(f"hint: {hint}", err=True)
    return code


if __name__ == "__main__":
    main()
