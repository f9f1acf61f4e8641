"""What a recipe cannot mean, told before any stage runs."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Literal

from slmops.engines import BODIES, check_installed
from slmops.errors import BadInput
from slmops.evaluate.cost import COSTS
from slmops.evaluate.evidence import JUDGED
from slmops.evaluate.gates import COMPARED_FIGURES
from slmops.pipeline.plan.names import (
    KEPT,
    named_terms,
    objective_of,
    own_callbacks,
    part_of,
    routed_combination,
    routes_of,
    words_of,
)
from slmops.recipe.compress import CompressSettings
from slmops.recipe.models import Recipe
from slmops.recipe.objective import Layered, Term, TextTerm
from slmops.recipe.task import ClassificationTask, ExtractionTask, NliTask
from slmops.recipe.teaching import LABEL, Combine
from slmops.search.candidates import candidates
from slmops.tasks import figure_names
from slmops.teach.routing import by_field
from slmops.train.objectives.base import OF_ROWS, OF_TEACHER, SPANS, STATES, STORED
from slmops.train.objectives.layers import in_range
from slmops.train.objectives.make import check_on_policy, needs_of


def check(recipe: Recipe) -> None:
    """Refuse now what would come to light only when the teacher is trained."""
    pool = recipe.data.sample.pool if recipe.data.sample else recipe.data.pool
    if recipe.teachers and not (pool or recipe.teach.write or recipe.teach.converse):
        raise BadInput(
            "data.pool is missing: the teacher has nothing to answer",
            hint="give texts without answers, or let the teacher write some: teach.write",
        )
    _check_objective(recipe)
    own_callbacks(recipe)
    _check_gates(recipe)
    _check_search(recipe)
    _check_runtime(recipe)
    _check_vocabulary(recipe)
    _check_curation(recipe)
    _check_writing(recipe)
    if combine := routed_combination(recipe):
        _check_routes(recipe, combine)


def _check_runtime(recipe: Recipe) -> None:
    """Refuse a runtime that is not there, or that cannot run what the recipe trains."""
    search = recipe.compress.search
    for runtime in (search and search.candidates.runtime) or [recipe.compress.runtime]:
        if runtime == "onnxruntime-genai":
            continue
        if runtime not in BODIES and recipe.student.head == "tags":
            raise BadInput(
                f"{runtime} runs no student that marks (student.head: tags)", hint="leave compress.runtime as it is"
            )
        check_installed(runtime)


def _check_vocabulary(recipe: Recipe) -> None:
    """Refuse to leave out tokens behind the training where they are left out before it, or cannot be."""
    search = recipe.compress.search
    if "trim" not in ((search and search.candidates.vocabulary) or [recipe.compress.vocabulary]):
        return
    if recipe.student.head == "tags":
        raise BadInput(
            "compress.vocabulary: trim is for students that write, and this one marks (student.head: tags)",
            hint="cut its tokens before it is trained: student.carve.vocabulary: trim",
        )
    if recipe.teachers and recipe.student.cut.vocabulary != "keep":
        raise BadInput(
            "compress.vocabulary: trim leaves out tokens behind the training, and student.carve.vocabulary: "
            f"{recipe.student.cut.vocabulary} leaves them out before it",
            hint="leave out compress.vocabulary; or set student.carve.vocabulary: keep",
        )


def _check_objective(recipe: Recipe) -> None:
    """Refuse terms of the loss that cannot be had; the user's own are imported and made."""
    objective = objective_of(recipe) if recipe.teachers else words_of(recipe)
    for term, name in named_terms(objective):
        needs = needs_of(term)
        if (of_teacher := sorted(needs - OF_ROWS)) and not recipe.teachers:
            raise BadInput(
                f"train.objective: {name} needs {', '.join(of_teacher)} of a teacher, and this recipe has none",
                hint="without a teacher a term has the logits and the words, and may need `states` and `vectors`",
            )
        if STATES in needs and not _labelled(recipe):
            raise BadInput(
                f"train.objective: {name} compares rows by their labels, and an answer of this task has none",
                hint="take contrastive, which compares inputs with answers, or leave it out",
            )
        if isinstance(term, TextTerm) and term.class_weights:
            _check_classes(recipe, f"train.objective: {name}: class_weights", term.class_weights)
        if needs & (KEPT | OF_TEACHER | SPANS) and recipe.words_alone:
            raise BadInput(
                f"train.objective: {name} needs more of the teacher than its words, and an endpoint gives no more",
                hint="set train.objective: {kind: text}, or leave it out",
            )
        if needs & KEPT and not recipe.teach.top_logits:
            raise BadInput(
                f"train.objective: {name} needs the teacher's probabilities, and teach.top_logits 0 keeps none",
                hint="set `logits: online` for it, use the kind text, or set teach.top_logits above 0",
            )
        if needs & OF_TEACHER and len(recipe.answering) > 1:
            raise BadInput(
                f"train.objective: {name} runs the teacher beside the student, and there are {len(recipe.answering)}",
                hint="several teachers are learned from by what they answered: the kind text, and divergences, span "
                "and uld with `logits: stored`",
            )
        _check_student_layers(recipe, term, f"train.objective: {name}")
    if recipe.train.on_policy:
        check_on_policy(objective, recipe.train.on_policy.fraction)
    for term, name in named_terms(recipe.student.heal.objective if recipe.student.heal else []):
        needs = needs_of(term)
        if STORED in needs:
            raise BadInput(
                f"student.heal.objective: {name} needs stored probabilities, and for this text none are stored",
                hint="a term here may need the teacher online, its hidden states or its attention",
            )
        if needs & OF_ROWS:
            raise BadInput(
                f"student.heal.objective: {name} compares rows with labels or answers, and blocks of text have none",
                hint="a term here may need the teacher online, its hidden states or its attention",
            )
        if needs & SPANS:
            raise BadInput(
                f"student.heal.objective: {name} goes by spans of answers, and this text has none",
                hint="a term here may need the teacher online, its hidden states or its attention",
            )
        _check_student_layers(recipe, term, f"student.heal.objective: {name}")


def _check_classes(recipe: Recipe, place: str, asked: Literal["balanced"] | Mapping[str, float]) -> None:
    """Refuse weights of classes where answers have none, or of one that the task does not list."""
    task = recipe.task
    if not _labelled(recipe):
        raise BadInput(f"{place}: an answer of this task has no label", hint="leave it out")
    known = getattr(task, "labels", None) or []
    for label in asked if known and asked != "balanced" else ():
        if label not in known:
            near = get_close_matches(label, known, n=1) or known
            raise BadInput(f"{place}.{label} is no label of the task", hint=f"did you mean `{near[0]}`?")


def _labelled(recipe: Recipe) -> bool:
    """Whether answers of the task have a label."""
    task = recipe.task
    return isinstance(task, ClassificationTask | NliTask) or (isinstance(task, ExtractionTask) and bool(task.label))


def _check_student_layers(recipe: Recipe, term: Term, place: str) -> None:
    """Refuse layers that the student will not have; how many a whole one has is known when it is there."""
    if isinstance(term, Layered) and recipe.student.carve.layers is not None:
        in_range(term.student_layers or [], recipe.student.carve.layers, f"{place}.student_layers", "student")


def _check_gates(recipe: Recipe) -> None:
    """Refuse a gate on a figure that no evaluation has, before anything is trained."""
    own = [*figure_names(recipe.task), *(metric.partition(":")[2] for metric in recipe.evaluate.metrics)]
    compared = [*(f"{name}_kept" for name in own), *COMPARED_FIGURES] if recipe.ships else []
    known = [*own, *compared, *COSTS]
    for name in recipe.evaluate.gates:
        if name in known or name.startswith(JUDGED):
            continue
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}"
        raise BadInput(f"evaluate.gates.{name} is no figure of this task", hint=hint)


def _check_search(recipe: Recipe) -> None:
    """Refuse bounds on a figure that the task does not have, and a search that would try nothing."""
    known, search = figure_names(recipe.task), recipe.compress.search
    if search:
        candidates(search.candidates, part_of(CompressSettings, recipe.compress))
    for name in search.subject_to if search else ():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}"
            raise BadInput(f"compress.search.subject_to.{name} is no figure of this task", hint=hint)


def _check_curation(recipe: Recipe) -> None:
    """Refuse checks of answers that this task's answers do not have."""
    task, curate = recipe.task, recipe.teach.curate
    if curate.rebalance != "none" and not _labelled(recipe):
        raise BadInput("teach.curate.rebalance: an answer of this task has no label", hint="leave it out")
    if curate.near_duplicates is not None and isinstance(task, ExtractionTask | ClassificationTask | NliTask):
        raise BadInput(
            "teach.curate.near_duplicates: answers of this task are no free text, so many are the same",
            hint="leave it out; data.screen.near_duplicates is for their inputs",
        )


def _check_writing(recipe: Recipe) -> None:
    """Refuse numbers for labels that there are not; rows alone know them where the task does not list any."""
    write, known = recipe.teach.write, getattr(recipe.task, "labels", None) or []
    for label in write.per_label if write and known else ():
        if label not in known:
            near = get_close_matches(label, known, n=1) or known
            raise BadInput(f"teach.write.per_label.{label} is no label of the task", hint=f"did you mean `{near[0]}`?")


def _check_routes(recipe: Recipe, combine: Combine) -> None:
    """Refuse rows of the pool that no teacher answers, and teachers that no row is for."""
    task = recipe.task
    if combine.by == LABEL:
        if not _labelled(recipe):
            raise BadInput("teach.combine.by: an answer of this task has no label", hint="route by a field of the rows")
        known = getattr(task, "labels", None)
        if known and (odd := [label for label in combine.routes if label not in known]):
            near = get_close_matches(odd[0], known, n=1) or known
            raise BadInput(f"teach.combine.routes.{odd[0]} is no label of the task", hint=f"did you mean `{near[0]}`?")
    elif recipe.teach.write or recipe.teach.converse:
        raise BadInput(f"teach.combine.by: rows that the teacher writes have no `{combine.by}`", hint="set `by: label`")
    elif recipe.data.pool is None:
        raise BadInput("teach.combine.by: rows of data.sample have a text alone", hint="give files, or `by: label`")
    else:
        column, routes = recipe.data.input, routes_of(recipe, combine)
        found = by_field(recipe.data.pool, routes, input=column, kind=task.kind, instruction=task.instruction)
        for number, teacher in enumerate(recipe.teachers, 1):
            if number not in found.values():
                raise BadInput(
                    f"teach.combine routes no row of {recipe.data.pool} to the teacher {teacher.name}",
                    hint="take it out of the recipe, or mend its routes",
                )
