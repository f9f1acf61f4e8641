"""`slmops data-card`: what a student learned from."""

from __future__ import annotations

from typing import Annotated

import typer

from slmops.cli.options import Home, Json
from slmops.pipeline.home import HOME


def register(app: typer.Typer) -> None:
    app.command("data-card")(data_card)


def data_card(
    run: Annotated[str, typer.Argument(help="A run's id, the beginning of one, or `last`.")] = "last",
    as_json: Json = False,
    home: Home = HOME,
) -> None:
    """Show what a run's student learned from: rows, classes, cost, what was dropped and why, samples."""
    import json

    from slmops.pipeline.upkeep import artifact_of
    from slmops.report.datacard import as_text

    content = (artifact_of(home, run, "curate") / "card.json").read_text(encoding="utf-8")
    typer.echo(json.dumps(json.loads(content)) if as_json else as_text(json.loads(content)))
