"""What the parts of a plan have in common: how nodes are called, and the settings that several need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from slmops.compress.stage import Convert
from slmops.models.source import local_path
from slmops.models.stage import Fetch, FetchSettings
from slmops.pipeline.environment import multiplies_bytes
from slmops.pipeline.stage import Node
from slmops.recipe.chat_template import ChatTemplate
from slmops.recipe.compress import CompressSettings
from slmops.recipe.models import Recipe
from slmops.recipe.objective import Objective, Term, TextTerm, term_names
from slmops.recipe.settings import Settings
from slmops.recipe.teachers import EndpointTeacher, TransformersTeacher
from slmops.recipe.teaching import LABEL, Combine
from slmops.teach.paying import EndpointAsking
from slmops.teach.routing import Routes
from slmops.train.calling import load_callbacks
from slmops.train.objectives.base import STORED, STORED_SPANS
from slmops.train.objectives.make import custom_terms
from slmops.train.stage import CALLBACK, OBJECTIVE

Part = TypeVar("Part", bound=Settings)


KEPT = frozenset({STORED, STORED_SPANS})
"""Needs that are met by what was kept of the teacher's probabilities."""


def nth_node(node: str, n: int) -> str:
    """The node of the teacher of number `n`: the first's has none."""
    return node if n == 1 else f"{node}:{n}"


def teacher_of(recipe: Recipe) -> str:
    """The node of the model in whose tokens the answers are: the first teacher's or, of words alone, the student's."""
    return base_node(recipe) if recipe.words_alone or not recipe.teachers else fitted_node(recipe, 1)


def fitted_node(recipe: Recipe, n: int) -> str:
    """The node of the model that answers for the teacher of number `n`, which runs here. Who judges is as it is."""
    teacher = recipe.teachers[n - 1]
    fitted = isinstance(teacher, TransformersTeacher) and teacher.fit and teacher is not recipe.judge
    return nth_node("teacher" if fitted else "base", n)


def endpoint_asking(recipe: Recipe, teacher: EndpointTeacher) -> EndpointAsking:
    """How one of the teachers is asked that are behind endpoints, beside the others, with which it has one budget."""
    answering = [other for _, other in recipe.answering if isinstance(other, EndpointTeacher)]
    others = [other for other in answering if other is not teacher]
    wrote = teacher is recipe.teacher
    budget, privacy = recipe.teach.budget, recipe.privacy
    return EndpointAsking(teacher=teacher, others=others, budget=budget, privacy=privacy, wrote=wrote)


def writer_node(recipe: Recipe, n: int) -> str:
    """The node whose model writes the answers of the teacher of number `n`: its export, or itself in PyTorch."""
    return nth_node("teacher:onnx", n) if recipe.teach.engine == "onnxruntime-genai" else fitted_node(recipe, n)


def export_of(recipe: Recipe) -> CompressSettings:
    """What a teacher is exported as to write."""
    wanted = recipe.teach.precision
    if wanted == "auto":
        wanted = "int8" if multiplies_bytes() else "fp32"
    # It is asked before anything is learned from its rows.
    return CompressSettings(precision=wanted, algorithm="rtn")


def base_node(recipe: Recipe) -> str:
    """The node of the model that nobody taught and that the student, or its like, is cut from."""
    return "student:base" if recipe.student.model else "base"


def rows_node(recipe: Recipe) -> str:
    """The node of the rows that the student learns from: `data`, or the last that writes rows or solutions."""
    teach = recipe.teach
    return "reason" if teach.reason else "converse" if teach.converse else "write" if teach.write else "data"


def labelled_node(recipe: Recipe) -> str:
    """The node of the rows that a teacher is fitted to: those with solutions, where there are such."""
    return "reason" if recipe.teach.reason else "data"


def has_other_tokens(recipe: Recipe) -> bool:
    """Whether the student's tokens may be others than those that the answers are in; words alone are in its own."""
    return recipe.student.model is not None and not recipe.words_alone


def objective_of(recipe: Recipe) -> Objective:
    """What the student imitates: one that labels learns labels, unless the recipe says more."""
    named = "objective" in recipe.train.model_fields_set
    labels = recipe.student.head == "tags" and not named
    return [TextTerm(kind="text", weight=1.0)] if labels else recipe.train.objective


def words_of(recipe: Recipe) -> Objective:
    """What a model learns of labelled rows alone: their words, in the way that the recipe says."""
    named = "objective" in recipe.train.model_fields_set
    return recipe.train.objective if named else [TextTerm(kind="text", weight=1.0)]


def named_terms(objective: Sequence[Term]) -> Iterator[tuple[Term, str]]:
    return zip(objective, term_names(objective), strict=True)


def routed_combination(recipe: Recipe) -> Combine | None:
    combine = recipe.teach.combine
    return combine if combine and combine.how == "routed" else None


def routes_of(recipe: Recipe, combine: Combine) -> Routes:
    """The routes without names: what teachers are called shapes nothing."""
    number = {teacher.name: n for n, teacher in enumerate(recipe.teachers, 1)}
    routes = {value: number[name] for value, name in combine.routes.items()}
    otherwise = None if combine.otherwise is None else number[combine.otherwise]
    return Routes(by=combine.by or LABEL, routes=routes, otherwise=otherwise)


def fetched_node(node: str, model: str, chat_template: ChatTemplate) -> Node:
    """A model from a wheel, a folder or the Hub."""
    path = local_path(model)
    named = None if path and path.is_dir() else model
    settings = FetchSettings(model=named, chat_template=chat_template)
    return Node(node, Fetch, settings, sources={"model": path} if path else {})


def shipped_node(node: str, settings: CompressSettings, model: str, *, answers: str | None = None) -> Node:
    """A model in the format of `settings`; `answers` is the node of those that it learned from."""
    # What recovery is, is told by the model that comes out of it.
    ships = part_of(CompressSettings, settings).model_copy(update={"recover": None})
    inputs = {"model": model} | ({"data": "data"} if ships.reads_rows else {})
    return Node(node, Convert, ships, inputs | ({"answers": answers} if answers and ships.trims else {}))


def own_terms(objective: Objective) -> dict[str, Path]:
    """The sources of the user's own terms, which shape what is trained with them."""
    return {OBJECTIVE + term.path: term.source for term in custom_terms(objective)}


def own_callbacks(recipe: Recipe) -> dict[str, Path]:
    """The sources of the callbacks, which may end the student's training."""
    called = load_callbacks(recipe.train.callbacks, evaluates=recipe.train.stop_early is not None)
    return {CALLBACK + one.path: one.source for one in called}


def part_of(of: type[Part], settings: Part) -> Part:
    """The part of `settings` that `of` has, without what a subclass adds: only that part enters the key."""
    return of(**{name: getattr(settings, name) for name in of.model_fields})
