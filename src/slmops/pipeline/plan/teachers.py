"""The part of the graph that ends in the answers to the pool."""

from __future__ import annotations

from slmops.compress.stage import Convert
from slmops.pipeline.plan.names import (
    KEPT,
    base_node,
    endpoint_of,
    export_of,
    fetched_node,
    fitted_node,
    labelled_node,
    local_teachers,
    named_terms,
    nth_node,
    objective_of,
    part_of,
    routed_combination,
    routes_of,
    rows_node,
    writer_node,
)
from slmops.pipeline.plan.student import student_base, student_nodes
from slmops.pipeline.plan.writing import writing_nodes
from slmops.pipeline.stage import Node
from slmops.recipe.models import Recipe
from slmops.recipe.settings import Settings
from slmops.recipe.teaching import LABEL, Combine
from slmops.recipe.training import Asking, Optimisation
from slmops.select.rounds import SelectSettings
from slmops.select.stage import SelectAnswers
from slmops.teach.paying import EndpointAsking
from slmops.teach.stage import CheckTeachers, CheckTeachersSettings, Join, Mix, MixSettings, Route, RouteSettings, Teach
from slmops.teach.stage_curate import CurateAnswers, CurateSettings
from slmops.teach.stage_endpoint import TeachByEndpoint
from slmops.train.objectives.make import needs_of
from slmops.train.stage import Fit, FitSettings


def teacher_nodes(recipe: Recipe) -> list[Node]:
    """Every teacher as it is, fitted to the labelled rows, exported, and the answers of all to the pool."""
    if endpoint := endpoint_of(recipe):
        asked = EndpointAsking(teacher=endpoint, budget=recipe.teach.budget, privacy=recipe.privacy)
        inputs = {"data": rows_node(recipe), "model": base_node(recipe)}
        answers = selected(recipe, Node("teach", TeachByEndpoint, asked, inputs=inputs))
        return [*student_base(recipe), *writing_nodes(recipe), answers, curate_node(recipe)]
    numbers = range(1, len(recipe.teachers) + 1)
    nodes = [
        fetched_node(nth_node("base", n), teacher.model, teacher.chat_template)
        for n, teacher in enumerate(local_teachers(recipe), 1)
    ]
    if len(recipe.teachers) > 1:
        stored = [name for term, name in named_terms(objective_of(recipe)) if needs_of(term) & KEPT]
        check = CheckTeachersSettings(names=[teacher.name for teacher in recipe.teachers], stored=stored)
        models = {f"model_{n}": nth_node("base", n) for n in numbers}
        nodes.append(Node("teachers:check", CheckTeachers, check, inputs=models))
    nodes += [*student_base(recipe), *writing_nodes(recipe)]
    for n in numbers:
        nodes += _teacher(recipe, n)
    return [*nodes, *_together(recipe), curate_node(recipe)]


def curate_node(recipe: Recipe) -> Node:
    """What of the answers is learned from; where several teachers answer every row, how many say the same."""
    weights = _weights(recipe) if len(recipe.teachers) > 1 and not routed_combination(recipe) else []
    settings = CurateSettings(**recipe.teach.curate.model_dump(), screen=recipe.data.screen, weights=weights)
    each = {f"answers_{n}": f"teach:{n}" for n in range(1, len(weights) + 1)}
    return Node("curate", CurateAnswers, settings, inputs={"data": "data", "answers": "teach", **each})


def selected(recipe: Recipe, teach: Node) -> Node:
    """`teach`; or where rows are chosen in rounds, the stage that asks for it, and for a student, again and again."""
    if recipe.teach.select is None:
        return teach
    students = {node.id: node for node in student_nodes(recipe)}
    carve, learn = students["student:carved"], students["student"]
    settings = SelectSettings.model_validate(
        {
            "select": recipe.teach.select,
            "asking": teach.settings,
            "curate": curate_node(recipe).settings,
            "carve": carve.settings,
            "distil": learn.settings,
        }
    )
    inputs, made = {"data": "data", "rows": rows_node(recipe)}, ("answers", "student")
    inputs |= {f"teach:{name}": node for name, node in teach.inputs.items() if name != "data"}
    for step, node in (("carve", carve), ("learn", learn)):
        inputs |= {f"{step}:{name}": of for name, of in node.inputs.items() if name not in made}
    return Node("teach", SelectAnswers, settings, inputs, sources=learn.sources)


def _teacher(recipe: Recipe, n: int) -> list[Node]:
    """The teacher of number `n` fitted, exported, and its answers to its rows of the pool."""
    pool, nodes = rows_node(recipe), list[Node]()
    if (combine := routed_combination(recipe)) and (n > 1 or combine.by != LABEL):
        pool = f"route:{n}"
        nodes.append(_route(recipe, combine, n))
    fit, fitted = local_teachers(recipe)[n - 1].fit, fitted_node(recipe, n)
    if fit:
        settings = FitSettings(optimisation=part_of(Optimisation, fit))
        nodes.append(Node(fitted, Fit, settings, inputs={"model": nth_node("base", n), "data": labelled_node(recipe)}))
    asking, answers = part_of(Asking, recipe.teach), {"data": pool, "model": fitted}
    if (writer := writer_node(recipe, n)) != fitted:
        exported = export_of(recipe)
        asking = asking.model_copy(update={"precision": exported.precision})
        nodes.append(Node(writer, Convert, exported, inputs={"model": fitted}))
        answers["engine"] = writer
    teach = Node("teach" if len(recipe.teachers) == 1 else f"teach:{n}", Teach, asking, inputs=answers)
    return [*nodes, selected(recipe, teach)]


def _route(recipe: Recipe, combine: Combine, n: int) -> Node:
    """The rows of the pool that the teacher of number `n` answers."""
    routes = routes_of(recipe, combine).model_dump()
    settings = RouteSettings(**routes, teacher_number=n, input=recipe.data.input)
    if combine.by == LABEL or recipe.data.pool is None:
        return Node(f"route:{n}", Route, settings, inputs={"data": rows_node(recipe), "answers": "teach:1"})
    return Node(f"route:{n}", Route, settings, inputs={"data": rows_node(recipe)}, sources={"pool": recipe.data.pool})


def _together(recipe: Recipe) -> list[Node]:
    """The answers of several teachers as those of one; no node where there is one."""
    if len(recipe.teachers) == 1:
        return []
    inputs = {"data": rows_node(recipe)}
    for n in range(1, len(recipe.teachers) + 1):
        inputs |= {f"answers_{n}": f"teach:{n}", f"engine_{n}": writer_node(recipe, n)}
        if n > 1 and routed_combination(recipe):
            inputs[f"rows_{n}"] = f"route:{n}"
    if routed_combination(recipe):
        return [Node("teach", Join, Settings(), inputs=inputs)]
    asked = recipe.teach
    mix = MixSettings(weights=_weights(recipe), engine=asked.engine, batch=asked.batch, top_logits=asked.top_logits)
    return [Node("teach", Mix, mix, inputs=inputs)]


def _weights(recipe: Recipe) -> list[float]:
    """What each teacher counts, in the order of the recipe."""
    given = recipe.teach.combine.weights if recipe.teach.combine else {}
    return [given.get(teacher.name, 1.0) for teacher in recipe.teachers]
