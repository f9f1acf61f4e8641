"""The part of the graph that ends in the answers to the pool."""

from __future__ import annotations

from slmops.bundle.manifest import read_manifest
from slmops.bundle.stage import OpenBundle
from slmops.compress.stage import Convert
from slmops.engines import check_installed
from slmops.pipeline.plan.names import (
    KEPT,
    base_node,
    endpoint_asking,
    export_of,
    fetched_node,
    fitted_node,
    labelled_node,
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
from slmops.recipe.teachers import Asking, BundleTeacher, EndpointTeacher, Teacher, TransformersTeacher
from slmops.recipe.teaching import LABEL, Combine
from slmops.recipe.training import Optimisation, Together
from slmops.select.rounds import SelectSettings
from slmops.select.stage import SelectAnswers
from slmops.teach.paying import Asked, LocalAsking
from slmops.teach.stage import CheckTeachers, CheckTeachersSettings, Join, Mix, MixSettings, Route, RouteSettings, Teach
from slmops.teach.stage_curate import CurateAnswers, CurateSettings
from slmops.teach.stage_endpoint import TeachByEndpoint
from slmops.teach.stage_judge import ChooseBest
from slmops.teach.stage_words import BundleAsking, Retell, TeachByBundle
from slmops.train.objectives.make import needs_of
from slmops.train.stage import Fit, FitSettings


def teacher_nodes(recipe: Recipe) -> list[Node]:
    """Every teacher as it is, fitted to the labelled rows, exported, and the answers of all to the pool."""
    nodes = [node for n, teacher in enumerate(recipe.teachers, 1) for node in _as_it_is(n, teacher)]
    if len(recipe.answering) > 1 and not recipe.words_alone:
        stored = [name for term, name in named_terms(objective_of(recipe)) if needs_of(term) & KEPT]
        check = CheckTeachersSettings(names=[teacher.name for _, teacher in recipe.answering], stored=stored)
        models = {f"model_{n}": nth_node("base", n) for n, _ in recipe.answering}
        nodes.append(Node("teachers:check", CheckTeachers, check, inputs=models))
    nodes += [*student_base(recipe), *writing_nodes(recipe)]
    for n, _ in recipe.answering:
        nodes += _teacher(recipe, n)
    return [*nodes, *_together(recipe), curate_node(recipe)]


def _as_it_is(n: int, teacher: Teacher) -> list[Node]:
    """The teacher of number `n` as it comes; none of one behind an endpoint."""
    node = nth_node("base", n)
    match teacher:
        case TransformersTeacher():
            return [fetched_node(node, teacher.model, teacher.chat_template)]
        case BundleTeacher():
            return [Node(node, OpenBundle, Settings(), {"data": "data"}, sources={"bundle": teacher.path})]
    return []


def curate_node(recipe: Recipe) -> Node:
    """What of the answers is learned from; where several answers to every row voted, how many say the same."""
    weights = _weights(recipe) if recipe.votes else []
    settings = CurateSettings(**recipe.teach.curate.model_dump(), screen=recipe.data.screen, weights=weights)
    each = {f"answers_{n}": _answers(recipe, n) for n in range(1, len(weights) + 1)}
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
    """The teacher of number `n` and its answers to its rows of the pool."""
    pool, nodes, teacher = rows_node(recipe), list[Node](), recipe.teachers[n - 1]
    if (combine := routed_combination(recipe)) and (n > 1 or combine.by != LABEL):
        pool = f"route:{n}"
        nodes.append(_route(recipe, combine, n))
    if isinstance(teacher, EndpointTeacher):
        asked = {"data": pool, "model": base_node(recipe)} | ({"whole": rows_node(recipe)} if combine else {})
        answers = Node(_answers(recipe, n), TeachByEndpoint, endpoint_asking(recipe, teacher), inputs=asked)
        return [*nodes, selected(recipe, answers)]
    if isinstance(teacher, BundleTeacher):
        engine = read_manifest(teacher.path, verify=False).engine
        check_installed(engine)
        answered = {"data": pool, "bundle": nth_node("base", n), "model": base_node(recipe)}
        told = BundleAsking(engine=engine, batch=recipe.teach.batch)
        return [*nodes, Node(_answers(recipe, n), TeachByBundle, told, inputs=answered)]
    return [*nodes, *_here(recipe, n, teacher, pool)]


def _here(recipe: Recipe, n: int, teacher: TransformersTeacher, pool: str) -> list[Node]:
    """The teacher of number `n` fitted, exported, and its answers; of words alone they are told in other tokens."""
    fitted, answers, nodes = fitted_node(recipe, n), _answers(recipe, n), list[Node]()
    if teacher.fit:
        settings = FitSettings(
            optimisation=part_of(Optimisation, teacher.fit),
            together=part_of(Together, teacher.fit),
            adapter=teacher.fit.to_make,
        )
        nodes.append(Node(fitted, Fit, settings, inputs={"model": nth_node("base", n), "data": labelled_node(recipe)}))
    asking, inputs, writer = part_of(Asking, recipe.teach), {"data": pool, "model": fitted}, writer_node(recipe, n)
    if writer != fitted:
        exported = export_of(recipe)
        asking = asking.model_copy(update={"precision": exported.precision})
        nodes.append(Node(writer, Convert, exported, inputs={"model": fitted}))
        inputs["engine"] = writer
    if not recipe.words_alone:
        return [*nodes, selected(recipe, Node(answers, Teach, asking, inputs=inputs))]
    own, asking = f"{answers}:own", asking.model_copy(update={"top_logits": 0})
    told = {"answers": own, "writer": writer, "model": base_node(recipe)}
    return [*nodes, Node(own, Teach, asking, inputs=inputs), Node(answers, Retell, Settings(), inputs=told)]


def _answers(recipe: Recipe, n: int) -> str:
    """The node of the answers of the teacher of number `n`."""
    return "teach" if len(recipe.teachers) == 1 else f"teach:{n}"


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
    for n, _ in recipe.answering:
        engine = base_node(recipe) if recipe.words_alone else writer_node(recipe, n)
        inputs |= {f"answers_{n}": _answers(recipe, n), f"engine_{n}": engine}
        if n > 1 and routed_combination(recipe):
            inputs[f"rows_{n}"] = f"route:{n}"
    if routed_combination(recipe):
        return [Node("teach", Join, Settings(), inputs=inputs)]
    if recipe.judge:
        return _judged(recipe, recipe.judge, inputs)
    asked, top_logits = recipe.teach, 0 if recipe.words_alone else recipe.teach.top_logits
    mix = MixSettings(weights=_weights(recipe), engine=asked.engine, batch=asked.batch, top_logits=top_logits)
    return [Node("teach", Mix, mix, inputs=inputs)]


def _judged(recipe: Recipe, judge: Teacher, inputs: dict[str, str]) -> list[Node]:
    """The best of the answers by the judge, with its export before that where it runs here."""
    if isinstance(judge, EndpointTeacher):
        return [Node("teach", ChooseBest, Asked(endpoint=endpoint_asking(recipe, judge)), inputs=inputs)]
    n = recipe.teachers.index(judge) + 1
    writer, nodes = writer_node(recipe, n), list[Node]()
    if writer != fitted_node(recipe, n):
        nodes.append(Node(writer, Convert, export_of(recipe), inputs={"model": fitted_node(recipe, n)}))
    here = Asked(local=LocalAsking(engine=recipe.teach.engine, batch=recipe.teach.batch))
    return [*nodes, Node("teach", ChooseBest, here, inputs={**inputs, "judge": writer})]


def _weights(recipe: Recipe) -> list[float]:
    """What each teacher counts, in the order of the recipe; all of them answer."""
    given = recipe.teach.combine.weights if recipe.teach.combine else {}
    return [given.get(teacher.name, 1.0) for teacher in recipe.teachers]
