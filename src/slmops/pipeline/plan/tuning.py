"""The part of the graph that fine-tunes a model on the labelled rows, where a recipe has no teacher."""

from __future__ import annotations

from pathlib import Path

from slmops.pipeline.plan.names import base_node, fetched_node, own_callbacks, own_terms, part_of, words_of
from slmops.pipeline.plan.student import shipped_nodes
from slmops.pipeline.stage import Node
from slmops.recipe.models import Recipe
from slmops.recipe.training import Optimisation, Together
from slmops.train.stage import GENERAL, FineTuneSettings, Fit


def tuning_nodes(recipe: Recipe) -> list[Node]:
    """The model as it comes, tuned, and what ships of it; nothing does where an adapter cannot be merged."""
    student, train, base = recipe.student, recipe.train, base_node(recipe)
    assert student.model  # noqa: S101 - the recipe has made sure
    objective = words_of(recipe)
    asks = student.head == "language" and train.general_text is not False
    settings = FineTuneSettings(
        optimisation=part_of(Optimisation, train),
        together=part_of(Together, train),
        adapter=train.to_make,
        round_to_int4=train.round_to_int4,
        head=student.head,
        objective=objective,
        callbacks=train.callbacks,
        measures_forgetting=asks,
    )
    sources = own_terms(objective) | own_callbacks(recipe)
    if isinstance(train.general_text, Path):
        sources[GENERAL] = train.general_text
    nodes = [
        fetched_node(base, student.model, student.chat_template),
        Node("student", Fit, settings, inputs={"model": base, "data": "data"}, sources=sources),
    ]
    return [*nodes, *(shipped_nodes(recipe, {}) if recipe.ships else [])]
