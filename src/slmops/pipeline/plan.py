"""From a recipe to the graph of its run: the only place that knows which stage follows which.

base ─ teacher ─ teacher:onnx ─ teach ─ student:carved ─ student ─ shipped ─┐
  │       └──────────────┴────────┘                         │               ├─ score:* ─ evaluate ─ bundle ─ report
  └─ baseline:carved ─ baseline ────────────────────────────┴───────────────┘
"""

from __future__ import annotations

from collections.abc import Mapping

from slmops.bundle.stage import WriteBundle, WriteBundleSettings
from slmops.compress.stage import Convert
from slmops.data.stage import prepare_data_node
from slmops.errors import BadInput
from slmops.evaluate.stage import METRIC, Compare, CompareSettings, Floor, Score, ScoreSettings
from slmops.models.source import local_path
from slmops.models.stage import Fetch, FetchSettings
from slmops.pipeline.stage import Node
from slmops.recipe.models import CompressSettings, Optimisation, Recipe, Running, Settings
from slmops.report.stage import Report, ReportSettings
from slmops.tasks import figure_names
from slmops.tasks.custom import load_metrics
from slmops.teach.stage import Teach
from slmops.train.stage import CarveStudent, Distil, DistilSettings, Fit


def nodes_for(recipe: Recipe) -> list[Node]:
    """The nodes of a run, each behind those it reads from.

    Raises:
        BadInput: the teacher's model is not on this machine, the task's schema cannot be used, or settings that are
            valid each by itself do not go together, or a metric cannot be imported.
    """
    _check(recipe)
    nodes = [prepare_data_node(recipe), *_teacher(recipe), *_student(recipe)]
    nodes += _evaluation(recipe, {node.id for node in nodes})
    nodes.append(
        Node(
            "bundle",
            WriteBundle,
            WriteBundleSettings(
                name=recipe.bundle.name or recipe.name,
                version=recipe.bundle.version,
                engine=recipe.compress.runtime,
                recipe=recipe.shareable(),
            ),
            inputs={"data": "data", "model": "shipped", "evaluate": "evaluate"},
        )
    )
    nodes.append(_report(recipe, nodes))
    return nodes


def _check(recipe: Recipe) -> None:
    """Refuse now what would come to light only when the teacher is trained."""
    pool = recipe.data.sample.pool if recipe.data.sample else recipe.data.pool
    if not pool:
        raise BadInput("data.pool is missing: the teacher has nothing to answer", hint="give texts without answers")
    if recipe.train.objective.kind == "kl" and not recipe.teach.top_logits:
        raise BadInput(
            "train.objective.kind kl needs the teacher's probabilities, and teach.top_logits 0 keeps none",
            hint="set train.objective.kind: text, or teach.top_logits above 0",
        )


def _teacher(recipe: Recipe) -> list[Node]:
    """The teacher as it is, fitted to the labelled rows, exported, and its answers to the pool."""
    teacher = recipe.teacher
    path = local_path(teacher.model)
    named = None if path and path.is_dir() else teacher.model
    base = Node(
        "base",
        Fetch,
        FetchSettings(model=named, chat_template=teacher.chat_template),
        sources={"model": path} if path else {},
    )
    nodes, fitted = [base], "base"
    if teacher.fit:
        fitted = "teacher"
        nodes.append(Node(fitted, Fit, _optimisation(teacher.fit), inputs={"model": "base", "data": "data"}))
    exported = CompressSettings(precision=recipe.teach.precision)
    nodes.append(Node("teacher:onnx", Convert, exported, inputs={"model": fitted}))
    answers = {"data": "data", "engine": "teacher:onnx", "model": fitted}
    nodes.append(Node("teach", Teach, recipe.teach, inputs=answers))
    return nodes


def _student(recipe: Recipe) -> list[Node]:
    """The carved and distilled student, the same student without a teacher, and what ships."""
    train, fitted = recipe.train, "teacher" if recipe.teacher.fit else "base"
    carve = recipe.student.carve
    distil = DistilSettings(
        optimisation=_optimisation(train), objective=train.objective, round_to_int4=train.round_to_int4
    )
    nodes = [
        Node("student:carved", CarveStudent, carve, inputs={"model": fitted, "data": "data", "answers": "teach"}),
        Node("student", Distil, distil, inputs={"student": "student:carved", "data": "data", "answers": "teach"}),
        Node("shipped", Convert, recipe.compress, inputs={"model": "student"}),
    ]
    if train.baseline:
        alone = _optimisation(train).model_copy(update={"epochs": train.baseline_epochs})
        # Cut from the untouched base model: what the teacher learned must not reach the baseline by its weights.
        carved = {"model": "base", "like": "student:carved"}
        nodes.append(Node("baseline:carved", CarveStudent, carve, inputs=carved))
        nodes.append(Node("baseline", Fit, alone, inputs={"model": "baseline:carved", "data": "data"}))
    return nodes


def _evaluation(recipe: Recipe, made: set[str]) -> list[Node]:
    """Each model measured on the test rows, and all of them compared."""
    settings = recipe.evaluate
    fitted = "teacher" if recipe.teacher.fit else "base"
    pytorch = ScoreSettings(engine="transformers", latency_requests=settings.latency_requests, threads=settings.threads)
    onnx = pytorch.model_copy(update={"engine": recipe.compress.runtime})
    roles: Mapping[str, tuple[str, ScoreSettings]] = {
        "teacher": (fitted, pytorch),
        "teacher_same": ("teacher:same", onnx),
        "baseline": ("baseline", pytorch),
        "student": ("student", pytorch),
        "shipped": ("shipped", onnx),
    }
    nodes = [
        Node("teacher:same", Convert, recipe.compress, inputs={"model": fitted}),
        Node("score:floor", Floor, Settings(), inputs={"data": "data"}),
    ]
    for role, (model, score) in roles.items():
        if model in made or model == "teacher:same":
            nodes.append(Node(f"score:{role}", Score, score, inputs={"model": model, "data": "data"}))
    scored = {node.id.partition(":")[2]: node.id for node in nodes if node.id.startswith("score:")}
    running = Running(**{name: getattr(settings, name) for name in Running.model_fields})
    compare = CompareSettings(
        gates=settings.gates, metrics=settings.metrics, running=running, teacher_price=recipe.teacher.price
    )
    metrics = load_metrics(settings.metrics, figure_names(recipe.task))
    sources = {METRIC + metric.path: metric.source for metric in metrics}
    nodes.append(Node("evaluate", Compare, compare, inputs={"data": "data", **scored}, sources=sources))
    return nodes


def _report(recipe: Recipe, nodes: list[Node]) -> Node:
    """The report reads every stage that has something to show."""
    made = {node.id for node in nodes}
    wanted = ("data", "teacher", "teach", "student:carved", "student", "baseline", "evaluate", "bundle")
    inputs = {name.replace(":", "_"): name for name in wanted if name in made}
    return Node("report", Report, ReportSettings(recipe=recipe.shareable()), inputs=inputs)


def _optimisation(settings: Optimisation) -> Optimisation:
    """The part of `settings` that moves weights, without what a subclass adds: only that part enters the key."""
    return Optimisation(**{name: getattr(settings, name) for name in Optimisation.model_fields})
