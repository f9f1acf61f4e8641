"""The part of the graph that measures, compares and reports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from slmops.bundle.manifest import read_manifest
from slmops.bundle.stage import OpenBundle
from slmops.data.stage import PrepareRegression
from slmops.errors import BadInput
from slmops.evaluate.stage import (
    LABELLED,
    METRIC,
    Compare,
    CompareSettings,
    Floor,
    JudgeAnswers,
    JudgeAnswersSettings,
    Score,
    ScoreSettings,
)
from slmops.evaluate.stage_calibrate import Calibrate, CalibrateSettings
from slmops.evaluate.stage_parity import CheckParity, CheckParitySettings
from slmops.models.source import local_path
from slmops.pipeline.plan.names import base_node, fetched_node, nth_node, shipped_node, teacher_of
from slmops.pipeline.stage import Node
from slmops.recipe.compress import CompressSettings
from slmops.recipe.evaluate import Running
from slmops.recipe.models import Recipe
from slmops.recipe.settings import Settings
from slmops.recipe.teachers import TransformersTeacher
from slmops.report.stage import Report, ReportSettings
from slmops.tasks import figure_names
from slmops.tasks.custom import load_metrics


def evaluation_nodes(recipe: Recipe, made: set[str]) -> list[Node]:
    """Each model measured on the test rows, and all of them compared."""
    settings = recipe.evaluate
    fitted, ships = teacher_of(recipe), "shipped" if recipe.ships else "student"
    score = ScoreSettings(latency_requests=settings.latency_requests, threads=settings.threads)
    roles: Mapping[str, tuple[str, ScoreSettings]] = {
        "teacher": (fitted, score),
        "teacher_same": ("teacher:same", score.model_copy(update={"answers": settings.quantised_teacher})),
        "baseline": ("baseline", score),
        "student": ("student", score),
        "shipped": ("shipped", score),
    }
    nodes = [Node("score:floor", Floor, Settings(), inputs={"data": "data"})]
    if not recipe.teachers:
        untuned = {"base": (base_node(recipe), score)} if recipe.train.baseline else {}
        roles = {**untuned, "student": roles["student"], "shipped": roles["shipped"]}
    elif recipe.words_alone:
        roles = {role: roles[role] for role in ("baseline", "student", "shipped")}
    else:
        nodes.insert(0, shipped_node("teacher:same", _format_of_teacher(recipe), fitted))
    for role, (model, asked) in roles.items():
        if model in made or model == "teacher:same":
            nodes.append(_score(role, model, asked))
    if settings.released:
        read_manifest(settings.released, verify=False)  # refused now, if it is no bundle
        # Answering the test rows again, beside all others, makes it a comparison of the same rows on the same machine.
        nodes += [
            Node("released", OpenBundle, Settings(), {"data": "data"}, sources={"bundle": settings.released}),
            _score("released", "released", score),
        ]
    scored = {node.id.partition(":")[2]: node.id for node in nodes if node.id.startswith("score:")}
    suite, judge = _regression(recipe, score, ships), _judge(recipe, scored, ships)
    beside = {"regression": "regression", "regression_answers": "regression:answers"} if suite else {}
    beside |= {"judged": "judge"} if judge else {}
    metrics = load_metrics(settings.metrics, figure_names(recipe.task))
    sources = {METRIC + metric.path: metric.source for metric in metrics}
    compare = CompareSettings(
        gates=settings.all_gates(),
        metrics=settings.metrics,
        running=Running(**{name: getattr(settings, name) for name in Running.model_fields}),
        teacher_price=next((t.price for t in recipe.teachers[:1] if isinstance(t, TransformersTeacher)), None),
    )
    evaluate = Node("evaluate", Compare, compare, inputs={"data": "data", **scored, **beside}, sources=sources)
    return [*nodes, *suite, *judge, evaluate]


def _format_of_teacher(recipe: Recipe) -> CompressSettings:
    """How the teacher is put into the shipped format; where it is only timed there, which values it has is all one.

    It keeps its tokens: what leaving some out does to the student is told by the student.
    """
    if recipe.evaluate.quantised_teacher or not recipe.compress.calibrated:
        return recipe.compress.whole
    return recipe.compress.whole.model_copy(update={"algorithm": "rtn", "int8_layers": 0, "sparsity": None})


def _score(role: str, model: str, settings: ScoreSettings) -> Node:
    return Node(f"score:{role}", Score, settings, inputs={"model": model, "data": "data"})


def _regression(recipe: Recipe, score: ScoreSettings, ships: str) -> list[Node]:
    """The rows that once failed, answered by what ships; no node where the recipe has none."""
    if recipe.evaluate.regression is None:
        return []
    answers = score.model_copy(update={"latency_requests": 1})
    return [
        Node("regression", PrepareRegression, Settings(), {"data": "data"}, {"suite": recipe.evaluate.regression}),
        Node("regression:answers", Score, answers, inputs={"model": ships, "data": "regression"}),
    ]


def _judge(recipe: Recipe, scored: Mapping[str, str], ships: str) -> list[Node]:
    """The judge, with its model where that runs on this machine; no node where the recipe has none."""
    judge = recipe.evaluate.judge
    if judge is None:
        return []
    if judge.against not in scored:
        raise BadInput(f"evaluate.judge.against: this recipe makes no {judge.against}")
    inputs = {"data": "data", "ours": scored[ships], "theirs": scored[judge.against]}
    nodes, engine = [], "transformers"
    if judge.base_url is None:
        path = local_path(judge.model)
        inputs["model"] = "judge:model"
        if path and (path / "manifest.json").is_file():
            engine = read_manifest(path, verify=False).engine
            nodes.append(Node("judge:model", OpenBundle, Settings(), sources={"bundle": path}))
        else:
            nodes.append(fetched_node("judge:model", judge.model, judge.chat_template))
        judge = judge.model_copy(update={"model": Path(judge.model).name if path else judge.model})
    settings = JudgeAnswersSettings(judge=judge, engine=engine, threads=recipe.evaluate.threads, privacy=recipe.privacy)
    return [*nodes, Node("judge", JudgeAnswers, settings, inputs=inputs)]


def calibration_nodes(recipe: Recipe) -> list[Node]:
    """How sure the shipped model may be of its labels; no node where the task has none."""
    if recipe.task.kind not in LABELLED:
        return []
    settings = CalibrateSettings(answered_accuracy=recipe.evaluate.answered_accuracy, threads=recipe.evaluate.threads)
    inputs = {"data": "data", "model": "shipped", "answers": "score:shipped"}
    return [Node("calibrate", Calibrate, settings, inputs=inputs)]


def parity_node(recipe: Recipe) -> Node:
    """The bundle against the student that it was made from, on rows that the student has answered already."""
    settings = CheckParitySettings(**recipe.evaluate.parity.model_dump(), threads=recipe.evaluate.threads)
    answered = {"source": "student", "answers": "score:student", "evaluate": "evaluate"}
    return Node("parity", CheckParity, settings, inputs={**answered, "bundle": "bundle", "data": "data"})


def report_node(recipe: Recipe, nodes: list[Node]) -> Node:
    """The report reads every stage that has something to show, and the answers of every model."""
    made = {node.id for node in nodes}
    others = [nth_node("teacher", n) for n in range(2, len(recipe.teachers) + 1)]
    wanted = ["data", "write", "converse", "reason", "teacher", *others, "curate"]
    wanted += ["student:carved", "student:healed", "student"]
    wanted += ["student:recovered", "baseline", "evaluate", "bundle", "parity"]
    shown = [name for name in wanted if name in made] + sorted(name for name in made if name.startswith("score:"))
    inputs = {name.replace(":", "_"): name for name in shown}
    inputs |= {"front": "shipped"} if recipe.compress.search else {}
    inputs |= {"bought": "teach"} if recipe.teach.select else {}
    settings = ReportSettings(recipe=recipe.shareable(), privacy=recipe.privacy)
    return Node("report", Report, settings, inputs=inputs)
