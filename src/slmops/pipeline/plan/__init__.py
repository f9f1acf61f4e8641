"""From a recipe to the graph of its run: the only place that knows which stage follows which.

base ─ teacher ─ teacher:onnx ─ teach ─ curate ─ student:carved ─ student ─ shipped ─┐
  │       └──────────────┴────────┘                                  │               ├─ score:* ─ evaluate ─ …
  └─ baseline:carved ─ baseline ─────────────────────────────────────┴───────────────┘

`bundle` and `report` follow on `evaluate`; `curate` hands on what of the answers is learned from.
Of several teachers the others have nodes of their own, numbered from 2 (`teacher:2`), each answers as `teach:N`, and
`teach` makes one set of answers of all. One behind an endpoint has answers alone; where any gives words alone, those of
teachers that run here are `teach:N:own` first, and told in the student's tokens then.
Where the pool is bought in rounds, `teach` asks for its own work and for a student again and again.
Where the teacher writes rows or solutions, `write`, `converse` and `reason` stand between `data` and `teach`, in this
order, and whoever learns reads the last of them. `user` is another model here that plays the user for `converse`.
A student of another model is carved from `student:base`, and so is its baseline.
`calibrate`, between `score:shipped` and bundle, makes the probabilities of labels match how often they are right.
`parity`, between bundle and report, holds the bundle against `student`.
Where the recipe heals, `student:healed` and `baseline:healed` stand behind what was carved. Where what is shipped
recovers from its rounding, `student:recovered` stands before it.
Without a teacher `student` is `student:base`, fine-tuned on `data`; where its adapter cannot be merged, the graph ends
in `evaluate` and `report`. Of several adapters each has this graph, and `report` is about all of them (`several.py`).
"""

from __future__ import annotations

from slmops.bundle.stage import WriteBundle, WriteBundleSettings
from slmops.data.stage import prepare_data_node
from slmops.pipeline.plan.checks import check
from slmops.pipeline.plan.evaluation import calibration_nodes, evaluation_nodes, parity_node, report_node
from slmops.pipeline.plan.names import rows_node
from slmops.pipeline.plan.several import several_nodes
from slmops.pipeline.plan.student import student_checks, student_nodes
from slmops.pipeline.plan.teachers import teacher_nodes
from slmops.pipeline.plan.tuning import tuning_nodes
from slmops.pipeline.stage import Node
from slmops.recipe.models import Recipe
from slmops.report.stage import Card, CardSettings


def nodes_for(recipe: Recipe) -> list[Node]:
    """The nodes of a run, each behind those it reads from.

    Raises:
        BadInput: the teacher's model is not on this machine, the task's schema cannot be used, or settings that are
            valid each by itself do not go together, or a metric or a term of the loss cannot be imported.
    """
    if recipe.adapters:
        return several_nodes(recipe)
    check(recipe)
    nodes = [prepare_data_node(recipe), *student_checks(recipe)]
    nodes += [*teacher_nodes(recipe), *student_nodes(recipe)] if recipe.teachers else tuning_nodes(recipe)
    nodes += evaluation_nodes(recipe, {node.id for node in nodes})
    if recipe.ships:
        nodes += _bundled(recipe)
    nodes.append(report_node(recipe, nodes))
    return nodes


def _bundled(recipe: Recipe) -> list[Node]:
    """What ships with its card, and held against the student."""
    name, version, shared = recipe.bundle.name or recipe.name, recipe.bundle.version, recipe.shareable()
    card = CardSettings(name=name, version=version, recipe=shared)
    told = {"data": rows_node(recipe), "evaluate": "evaluate"} | (
        {"healed": "student:healed"} if recipe.student.heal else {}
    )
    bundle = WriteBundleSettings(name=name, version=version, recipe=shared)
    parts = {"data": "data", "model": "shipped", "evaluate": "evaluate", "card": "card"}
    parts |= {"answers": "curate"} if recipe.teachers else {}
    calibration = calibration_nodes(recipe)
    parts |= {node.id: node.id for node in calibration}
    return [
        Node("card", Card, card, inputs=told),
        *calibration,
        Node("bundle", WriteBundle, bundle, inputs=parts),
        parity_node(recipe),
    ]
