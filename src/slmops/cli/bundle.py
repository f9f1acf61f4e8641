"""`slmops predict` and `slmops chat`: asking a bundle."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slmops.cli.options import Json, Quiet

if TYPE_CHECKING:
    from slmops.bundle import Bundle

BundleFolder = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder of a bundle.")]
Threads = Annotated[int, typer.Option("--threads", min=0, help="Threads of the engine; 0 takes all cores.")]

Adapter = Annotated[
    str | None,
    typer.Option("--adapter", metavar="NAME", help="Ask with an adapter of the bundle; the base when absent."),
]

_LEAST_SHOWN, _MOST_SHOWN = 0.005, 8
"""Of the probabilities of labels: the smallest that has a line, and how many have one."""


def register(app: typer.Typer) -> None:
    app.command("predict")(predict)
    app.command("chat")(chat)


def predict(
    bundle: BundleFolder,
    text: Annotated[str | None, typer.Argument(help="What to ask; read from stdin when absent.")] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="ROWS", help="Rows with `input` (JSONL, JSON, CSV, Parquet)."),
    ] = None,
    adapter: Adapter = None,
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities", help="How likely each label of the task is, calibrated where the bundle is, too."
        ),
    ] = False,
    threads: Threads = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Answer a text, or every row of a file with one JSON line each.

    Exit code 1: what the model wrote is no answer of its task.
    """
    from slmops.bundle import open_bundle
    from slmops.errors import BadInput

    if text is not None and file is not None:
        raise BadInput("a text and --file exclude each other")
    opened = open_bundle(bundle, threads=threads)
    if adapter is not None:
        opened = opened.adapted(adapter)
    if file is not None:
        _predict_file(opened, file, probabilities, quiet)
    else:
        _predict_one(opened, sys.stdin.read().rstrip("\n") if text is None else text, probabilities, as_json)


def _predict_one(bundle: Bundle, text: str, probabilities: bool, as_json: bool) -> None:
    from slmops.errors import SlmopsError

    shares = bundle.probabilities([text])[0] if probabilities else {}
    prediction = bundle.predict(text)
    if as_json:
        typer.echo(json.dumps(prediction.plain() | ({"probabilities": shares} if shares else {}), ensure_ascii=False))
    elif not prediction.failure:
        answer = prediction.answer
        typer.echo(answer if isinstance(answer, str) else json.dumps(answer, indent=2, ensure_ascii=False))
        if shares:
            typer.echo(_sureness(bundle, shares))
    if prediction.failure:
        raise SlmopsError(f"no answer: {prediction.failure}", hint=f"the model wrote {prediction.text!r}")


def _sureness(bundle: Bundle, shares: Mapping[str, float]) -> str:
    """The likeliest labels, a line each, and what is to be known of them."""
    order = sorted(shares, key=lambda label: -shares[label])
    shown = [label for label in order if shares[label] >= _LEAST_SHOWN][:_MOST_SHOWN]
    lines = [f"  {shares[label]:7.2%}  {label}" for label in shown]
    if rest := len(order) - len(shown):
        lines.append(f"  {sum(shares[label] for label in order[len(shown) :]):7.2%}  {rest} other{'s' * (rest > 1)}")
    calibration = bundle.asked.calibration
    if calibration is None:
        lines.append("not calibrated")
    elif calibration.abstain_below is not None and shares[order[0]] < calibration.abstain_below:
        lines.append(
            f"unsure: below {calibration.abstain_below:.2%} the bundle is not right in "
            f"{calibration.answered_accuracy:.0%} of its answers"
        )
    return "\n".join(lines)


def _predict_file(bundle: Bundle, file: Path, probabilities: bool, quiet: bool) -> None:
    from slmops import console
    from slmops.bundle.rows import predict_rows

    asked = unreadable = 0
    for record in predict_rows(bundle, file, probabilities=probabilities, progress=console.screen(quiet=quiet)):
        typer.echo(json.dumps(record, ensure_ascii=False))
        asked += 1
        unreadable += record["failure"] is not None
    if unreadable and not quiet:
        typer.echo(f"{unreadable} of {asked} rows have no answer; see `failure`", err=True)


def chat(bundle: BundleFolder, adapter: Adapter = None, threads: Threads = 0) -> None:
    """Ask line by line; each line is a request of its own. Ctrl-D ends."""
    from slmops.bundle import open_bundle
    from slmops.errors import BadInput
    from slmops.tasks import Extraction, ParseFailure

    opened = open_bundle(bundle, threads=threads)
    if adapter is not None:
        opened = opened.adapted(adapter)
    # Half an object is of no use to a reader, and the text of a whole one is written for tokenizers.
    live = not isinstance(opened.task, Extraction)
    while line := _next_line():
        if not line.strip():
            continue
        pieces = []
        try:
            for piece in opened.chat(opened.task.render(line.rstrip("\n"))):
                pieces.append(piece)
                if live:
                    typer.echo(piece, nl=False)
                    sys.stdout.flush()
        except BadInput as error:
            typer.echo(f"error: {error}", err=True)
            continue
        text = "".join(pieces)
        answer = opened.task.parse(text)
        failed = isinstance(answer, ParseFailure)
        typer.echo("" if live else text if failed else json.dumps(answer, ensure_ascii=False))
        if failed:
            typer.echo(f"(no answer of its task: {answer.reason})", err=True)


def _next_line() -> str:
    """A line with its line end, empty at the end of the input."""
    if sys.stdin.isatty():
        typer.echo("> ", nl=False, err=True)
    return sys.stdin.readline()
