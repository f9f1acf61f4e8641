"""`slmops adapters export`: one base with many adapters as one bundle, without a recipe."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from slmops.cli.options import Json, Quiet

if TYPE_CHECKING:
    from slmops.tasks import Row, Task

_BASE = "base"


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="One base, many adapters.", rich_markup_mode=None, no_args_is_help=True)
    group.command("export")(export)
    app.add_typer(group, name="adapters")


def export(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="A Hugging Face folder.")],
    adapter: Annotated[
        list[str], typer.Option("--adapter", metavar="NAME=FOLDER", help="A LoRA of it, as PEFT keeps it. Repeatable.")
    ],
    task: Annotated[
        list[str],
        typer.Option("--task", metavar="NAME=FILE", help="YAML with a recipe's `task`, of `base` and of each adapter."),
    ],
    rows: Annotated[
        list[str],
        typer.Option("--rows", metavar="NAME=ROWS", help="Rows with answers of each adapter, which parity asks."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the bundle goes; the old one is replaced.")],
    name: Annotated[str | None, typer.Option("--name", help="Of the bundle; the name of --out when absent.")] = None,
    version: Annotated[str, typer.Option("--version", help="Of the bundle.")] = "1.0.0",
    precision: Annotated[
        Literal["int4", "int8", "fp32"], typer.Option("--precision", help="Of the base's weights.")
    ] = "int8",
    algorithm: Annotated[
        Literal["rtn", "k_quant"], typer.Option("--algorithm", help="How int4 and int8 choose their values.")
    ] = "rtn",
    threads: Annotated[int, typer.Option("--threads", min=0, help="Of the engines; 0 takes all cores.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export a base once, with slots, and each adapter as a file; prove that each answers as it does merged.

    Exit code 3: an adapter answers otherwise than PyTorch's merged model; nothing is written then.
    """
    from slmops import console
    from slmops.bundle import AdapterPart
    from slmops.bundle.write import check_place
    from slmops.compress.adapters import convert_adapters
    from slmops.engines.onnx_slots import FILE
    from slmops.errors import GateFailed
    from slmops.evaluate.adapter_parity import Trained, place_proven
    from slmops.recipe.compress import CompressSettings

    folders = {one: Path(path) for one, path in _named(adapter, "--adapter").items()}
    check_place(out, name or out.name, version)
    tasks = _tasks(folders, _named(task, "--task"), _named(rows, "--rows"))
    settings = CompressSettings(precision=precision, algorithm="rtn" if precision == "fp32" else algorithm)
    described = {one: kind.describe() for one, (kind, _) in tasks.items()}
    asked = {one: found for one, (_, found) in tasks.items()}
    with tempfile.TemporaryDirectory(prefix="slmops-adapters-") as work:
        made, progress = Path(work) / "made", console.screen(quiet=quiet)
        convert_adapters(base, folders, made, settings, scratch=Path(work) / "scratch", progress=progress)
        parts = {one: AdapterPart(made / "adapters" / f"{one}{FILE}", described[one]) for one in folders}
        told = {"name": name or out.name, "version": version, "task": described[_BASE]}
        trained = Trained(base, folders, asked)
        verdicts = place_proven(out, made / "model", parts, trained, told, work=Path(work), threads=threads)
    typer.echo(json.dumps(verdicts, ensure_ascii=False) if as_json else "\n".join(one["message"] for one in verdicts))
    if failed := [one["message"] for one in verdicts if one["state"] != "pass"]:
        raise GateFailed("\n".join(failed), hint="ship the base in more bits (--precision int8 or fp32)")
    if not quiet:
        typer.echo(f"written to {out}", err=True)


def _tasks(
    folders: Collection[str], tasks: Mapping[str, str], rows: Mapping[str, str]
) -> dict[str, tuple[Task, list[Row]]]:
    """The task and the rows of the base, which needs none, and of each adapter."""
    from slmops.errors import BadInput
    from slmops.evaluate.given import read_task

    for flag, given, needed in (("--task", tasks, {_BASE, *folders}), ("--rows", rows, set(folders))):
        if odd := sorted(given.keys() - {_BASE, *folders}):
            raise BadInput(f"{flag} {odd[0]}=…: there is no adapter of that name", hint=f"names: {', '.join(folders)}")
        if missing := sorted(needed - given.keys()):
            raise BadInput(f"{missing[0]} has no {flag}", hint=f"give {flag} {missing[0]}=FILE")
    return {name: read_task(Path(file), Path(rows[name]) if name in rows else None) for name, file in tasks.items()}


def _named(given: Sequence[str], flag: str) -> dict[str, str]:
    from slmops.errors import BadInput

    named: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise BadInput(f"{flag} {text} cannot be read", hint=f"as in {flag} NAME=PATH")
        if name in named or (flag == "--adapter" and name == _BASE):
            raise BadInput(f"{flag} {name}=… is {'given twice' if name in named else 'the base itself'}")
        named[name] = value
    return named
