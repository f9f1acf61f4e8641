"""The graph that makes a model small without a recipe."""

from __future__ import annotations

from pathlib import Path

from slmops.data.stage import PartRows, PartRowsSettings
from slmops.engines import check_installed
from slmops.errors import BadInput
from slmops.pipeline.plan.names import fetched_node
from slmops.pipeline.stage import Node
from slmops.recipe.chat_template import ChatTemplate
from slmops.recipe.compress import CompressSettings
from slmops.recipe.search import SearchSettings
from slmops.recipe.task import ExtractionTask, TaskSettings
from slmops.search.stage import FindSettings, Search
from slmops.tasks import figure_names

CALIBRATION_SHARE = 0.2
"""Of the rows, where none are given apart: some to round by, most to judge on."""


def compress_nodes(
    model: str,
    rows: Path,
    task: TaskSettings,
    search: SearchSettings,
    *,
    calibration: Path | None = None,
    columns: tuple[str, str] = ("input", "output"),
    most: int | None = None,
    chat_template: ChatTemplate = "model",
    extra_tokens: int | None = None,
) -> list[Node]:
    """Nodes that end in `shipped`, the best way to ship `model` that a search on `rows` finds.

    Args:
        model: a folder, `wheel:NAME` or a Hub id.
        rows: file of labelled rows.
        calibration: file of other rows to round by; without one a share of `rows` is taken away for it.
        columns: with the text and with the answer.
        most: rows to take of each file, from its beginning.
        extra_tokens: of candidates with a trimmed vocabulary; None takes the default of a recipe.

    Raises:
        BadInput: the model or a runtime is not on this machine, a bound is on a figure that the task does not have, or
            no candidate has a use for `extra_tokens`.
    """
    trims = "trim" in (search.candidates.vocabulary or ())
    if extra_tokens is not None and not trims:
        raise BadInput("--extra-tokens is of a trimmed vocabulary", hint="add --try vocabulary=keep,trim")
    known = figure_names(task)
    for name in search.subject_to:
        if name not in known:
            raise BadInput(f"{name} is no figure of this task", hint=f"known: {', '.join(known)}")
    for runtime in search.candidates.runtime or ():
        check_installed(runtime)
    sources = {"rows": rows} | ({"calibration": calibration} if calibration else {})
    if isinstance(task, ExtractionTask):
        sources["schema"] = task.json_schema
        task = task.model_copy(update={"json_schema": Path("schema")})
    text, answer = columns
    part = PartRowsSettings(task=task, input=text, output=answer, share=CALIBRATION_SHARE, most=most)
    ships = CompressSettings(vocabulary="trim" if trims else "keep")
    if extra_tokens is not None:
        ships = CompressSettings(vocabulary="trim", extra_tokens=extra_tokens)
    find = FindSettings(ships=ships, search=search)
    return [
        fetched_node("model", model, chat_template),
        Node("data", PartRows, part, sources=sources),
        Node("shipped", Search, find, {"model": "model", "data": "data"}),
    ]
