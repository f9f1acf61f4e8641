"""The part of the graph in which a teacher writes more than answers: rows for the pool, and solutions of labelled ones.

data ─ write ─ converse ─ reason; each that the recipe asks for stands behind the one before.
"""

from __future__ import annotations

from typing import Any

from slmops.compress.stage import Convert
from slmops.pipeline.plan.names import endpoint_asking, export_of
from slmops.pipeline.stage import Node
from slmops.recipe.models import Recipe
from slmops.recipe.training import EndpointTeacher
from slmops.teach.paying import Asked, LocalAsking
from slmops.teach.stage_write import (
    ConverseRows,
    ConverseSettings,
    ReasonRows,
    ReasonSettings,
    WriteRows,
    WriteSettings,
)

WRITER = "base:onnx"
"""The node of the first teacher's export before it is fitted."""


def writing_nodes(recipe: Recipe) -> list[Node]:
    """What is written, in order; no nodes where the recipe asks for nothing."""
    teach, data = recipe.teach, "data"
    asked, model = _asked(recipe), _model(recipe)
    steps: list[tuple[str, Any, Asked]] = []
    if teach.write:
        steps.append(("write", WriteRows, WriteSettings(write=teach.write, **asked)))
    if teach.converse:
        steps.append(("converse", ConverseRows, ConverseSettings(converse=teach.converse, **asked)))
    if teach.reason:
        steps.append(("reason", ReasonRows, ReasonSettings(reason=teach.reason, **asked)))
    nodes = [Node(WRITER, Convert, export_of(recipe), inputs={"model": "base"})] if steps and model == WRITER else []
    for name, stage, settings in steps:
        nodes.append(Node(name, stage, settings, {"data": data} | ({"model": model} if model else {})))
        data = name
    return nodes


def _asked(recipe: Recipe) -> dict[str, Any]:
    if isinstance(recipe.teacher, EndpointTeacher):
        return {"endpoint": endpoint_asking(recipe, recipe.teacher)}
    return {"local": LocalAsking(engine=recipe.teach.engine, batch=recipe.teach.batch)}


def _model(recipe: Recipe) -> str | None:
    """The node of the model that writes: the first teacher before it is fitted, since that unlearns to write freely."""
    if isinstance(recipe.teacher, EndpointTeacher):
        return None
    if recipe.teach.engine == "transformers":
        return "base"
    return WRITER
