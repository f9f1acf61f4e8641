"""`slmops export`: what other systems take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slmops.cli.bundle import BundleFolder
from slmops.cli.options import Home, Overrides
from slmops.cli.run import RecipeFile
from slmops.pipeline.home import HOME

Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="A folder that is empty or not there yet.")]

Where = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="A folder that is empty or not there yet; exports/BUNDLE-TARGET."),
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Write what other systems take.", rich_markup_mode=None, no_args_is_help=True)
    for command in (foundry, ollama, openvino, container, huggingface):
        group.command(command.__name__)(command)
    group.command("azure-distillation")(azure_distillation)
    group.command("olive")(olive)
    app.add_typer(group, name="export")


def foundry(bundle: BundleFolder, out: Where = None) -> None:
    """Write a bundle as a folder that Foundry Local registers."""
    from slmops.export.foundry import export_foundry

    _written(export_foundry(bundle, _place(bundle, out, "foundry")))


def ollama(bundle: BundleFolder, out: Where = None) -> None:
    """Write a bundle as a GGUF file with its Modelfile, for Ollama and llama.cpp."""
    from slmops.export.ollama import export_ollama

    place = _place(bundle, out, "ollama")
    for note in export_ollama(bundle, place):
        typer.echo(note, err=True)
    _written(place)


def openvino(
    bundle: BundleFolder,
    out: Where = None,
    python: Annotated[
        Path | None,
        typer.Option("--python", metavar="FILE", help="Python of an environment with optimum-intel, which converts."),
    ] = None,
) -> None:
    """Write a bundle as a model of OpenVINO's. Its weights are rounded once more, by OpenVINO."""
    from slmops.export.openvino import export_openvino

    _written(export_openvino(bundle, _place(bundle, out, "openvino"), python=python))


def container(bundle: BundleFolder, out: Where = None) -> None:
    """Write what builds an image that serves a bundle, and what runs it by Compose, Kubernetes and KServe."""
    from slmops.export.container_folder import export_container

    _written(export_container(bundle, _place(bundle, out, "container")))


def huggingface(
    bundle: BundleFolder,
    out: Where = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Write float32, so that no weight moves; else packed ones become float16.")
    ] = False,
) -> None:
    """Write a bundle as a plain Hugging Face folder, with the values that the bundle computes with."""
    from slmops.export.huggingface import export_huggingface

    _written(export_huggingface(bundle, _place(bundle, out, "huggingface"), exact=exact))


def _place(bundle: Path, out: Path | None, target: str) -> Path:
    return out or Path("exports") / f"{bundle.resolve().name}-{target}"


def _written(folder: Path) -> None:
    from slmops.pipeline.files import files_below

    for name in files_below(folder):
        typer.echo(folder / name)


def azure_distillation(
    recipe: RecipeFile,
    out: Out,
    student: Annotated[
        str,
        typer.Option("--student", metavar="ID", help="What Azure trains: azureml://registries/R/models/M/versions/V."),
    ],
    overrides: Overrides = None,
    home: Home = HOME,
) -> None:
    """Write a recipe's distillation as a job of Azure Machine Learning. Sends nothing, and holds no key.

    The teacher must be behind an endpoint, and the task one that Azure distils: nli, qa, maths, summarisation or
    conversation.
    """
    from slmops.export.azure_distillation import DistillationJob
    from slmops.pipeline.plan.rows import prepared
    from slmops.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    job = DistillationJob(loaded, student, out)
    with prepared(loaded, home) as data:
        files, notes = job.write(data)
    for path in files:
        typer.echo(path)
    for note in notes:
        typer.echo(note, err=True)
    typer.echo(f"next: {out / 'README.md'}", err=True)


def olive(recipe: RecipeFile, out: Out, overrides: Overrides = None, home: Home = HOME) -> None:
    """Write a recipe's fine-tuning as a run configuration of Olive, with its rows and its model. Runs nothing.

    The recipe has no teacher, and its train.method is lora, dora or qlora.
    """
    from slmops.export.folder import check_free
    from slmops.pipeline.plan.rows import prepared, prepared_base
    from slmops.recipe import load_recipe
    from slmops.train.olive_job import OliveJob

    check_free(out)
    job = OliveJob(load_recipe(recipe, [*(overrides or ()), "train.backend=olive"]), out)
    with prepared(job.recipe, home) as data, prepared_base(job.recipe, home) as base:
        files = job.write(data, base)
    for path in files:
        typer.echo(path)
    typer.echo(f"next: {out / 'README.md'}", err=True)
