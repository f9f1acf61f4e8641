"""The part of the graph that a trial of a search over settings needs: the student, and how good it is."""

from __future__ import annotations

from slmops.pipeline.keys import in_order
from slmops.pipeline.plan import nodes_for
from slmops.pipeline.stage import Node
from slmops.recipe.models import Recipe
from slmops.recipe.settings import Settings
from slmops.select.stage_rows import MeasureStudent

STUDENT, MEASURED = "student", "measured"


def trial_nodes(recipe: Recipe) -> list[Node]:
    """What leads to `student`, it, and `measured`: its figures on the validation rows.

    Raises:
        BadInput: see `nodes_for`.
    """
    nodes = nodes_for(recipe)
    by_id, needed, found = {node.id: node for node in nodes}, [STUDENT], set[str]()
    while needed:
        if (name := needed.pop()) not in found:
            found.add(name)
            needed += by_id[name].inputs.values()
    leading = [node for node in nodes if node.id in found]
    return in_order([*leading, Node(MEASURED, MeasureStudent, Settings(), {"model": STUDENT, "data": "data"})])
