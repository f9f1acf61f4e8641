"""The part of the graph in which a teacher writes more than answers: rows for the pool, and solutions of labelled ones.

data ─ write ─ converse ─ reason; each that the recipe asks for stands behind the one before. Who plays the user for
`converse`, where that is another model here, is `user`.
"""

from __future__ import annotations

from typing import Any

from slmops.compress.stage import Convert
from slmops.pipeline.plan.names import endpoint_asking, export_of, fetched_node
from slmops.pipeline.stage import Node
from slmops.recipe.models import Recipe
from slmops.recipe.teachers import EndpointTeacher, TransformersTeacher
from slmops.recipe.writing import Converse
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

USER = "user"
"""The node of another model on this machine that plays the user in talks; its export stands behind it."""


def writing_nodes(recipe: Recipe) -> list[Node]:
    """What is written, in order; no nodes where the recipe asks for nothing."""
    teach, data = recipe.teach, "data"
    asked, model = _asked(recipe), _model(recipe)
    steps: list[tuple[str, Any, Asked]] = []
    player = _player(recipe)
    if teach.write:
        steps.append(("write", WriteRows, WriteSettings(write=teach.write, **asked)))
    if teach.converse:
        steps.append(("converse", ConverseRows, _talks(recipe, teach.converse, asked)))
    if teach.reason:
        steps.append(("reason", ReasonRows, ReasonSettings(reason=teach.reason, **asked)))
    nodes = [Node(WRITER, Convert, export_of(recipe), inputs={"model": "base"})] if steps and model == WRITER else []
    nodes += player
    for name, stage, settings in steps:
        models = {"model": model} if model else {}
        if name == "converse" and player:
            models["user"] = player[-1].id
        nodes.append(Node(name, stage, settings, {"data": data, **models}))
        data = name
    return nodes


def _talks(recipe: Recipe, converse: Converse, asked: dict[str, Any]) -> ConverseSettings:
    """A user that runs here is an input, so that the model counts and not what it is called."""
    user = recipe.user if isinstance(recipe.user, EndpointTeacher) else None
    if isinstance(recipe.user, TransformersTeacher):
        asked = {**asked, "local": _local(recipe)}
    return ConverseSettings(converse=converse.model_copy(update={"user": None}), user=user, **asked)


def _player(recipe: Recipe) -> list[Node]:
    """The model that plays the user, where that is another one on this machine."""
    if not isinstance(recipe.user, TransformersTeacher):
        return []
    nodes = [fetched_node(USER, recipe.user.model, recipe.user.chat_template)]
    if recipe.teach.engine == "onnxruntime-genai":
        nodes.append(Node(f"{USER}:onnx", Convert, export_of(recipe), inputs={"model": USER}))
    return nodes


def _asked(recipe: Recipe) -> dict[str, Any]:
    if isinstance(recipe.teacher, EndpointTeacher):
        return {"endpoint": endpoint_asking(recipe, recipe.teacher)}
    return {"local": _local(recipe)}


def _local(recipe: Recipe) -> LocalAsking:
    return LocalAsking(engine=recipe.teach.engine, batch=recipe.teach.batch)


def _model(recipe: Recipe) -> str | None:
    """The node of the model that writes: the first teacher before it is fitted, since that unlearns to write freely."""
    if isinstance(recipe.teacher, EndpointTeacher):
        return None
    if recipe.teach.engine == "transformers":
        return "base"
    return WRITER
