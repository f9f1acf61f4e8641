"""The part of the graph that makes the student, the baseline and what ships."""

from __future__ import annotations

from collections.abc import Mapping

from slmops.pipeline.plan.names import (
    base_node,
    fetched_node,
    has_other_tokens,
    objective_of,
    own_callbacks,
    own_terms,
    part_of,
    rows_node,
    shipped_node,
    teacher_of,
)
from slmops.pipeline.stage import Node
from slmops.recipe.compress import CompressSettings
from slmops.recipe.compress import Recover as RecoverRecipe
from slmops.recipe.models import Recipe
from slmops.recipe.settings import Settings
from slmops.recipe.student import Heal as HealRecipe
from slmops.recipe.training import Optimisation, Together
from slmops.search.stage import FindSettings, Search
from slmops.train.objectives.base import OF_TEACHER, SPANS
from slmops.train.objectives.make import all_needs
from slmops.train.stage import CarveStudent, Distil, DistilSettings, Fit, FitSettings
from slmops.train.stage_checks import CheckCut, CheckMarks, CheckPair, PairSettings
from slmops.train.stage_heal import TEXT, CheckHeal, Heal, HealSettings
from slmops.train.stage_recover import Recover, RecoverSettings


def student_checks(recipe: Recipe) -> list[Node]:
    """What the rows tell of the student before the teacher costs anything."""
    if recipe.student.head == "language":
        return []
    return [Node("student:marks", CheckMarks, Settings(), inputs={"data": "data"})]


def student_base(recipe: Recipe) -> list[Node]:
    """The model that the student is cut from, where it is not the teacher, and what can be told before any learns."""
    student, base, nodes = recipe.student, base_node(recipe), list[Node]()
    if student.model:
        nodes.append(fetched_node(base, student.model, student.chat_template))
    if has_other_tokens(recipe):
        pair = PairSettings(objective=objective_of(recipe))
        nodes.append(Node("student:pair", CheckPair, pair, inputs={"teacher": "base", "student": base}))
    carve = student.cut
    if carve.heads is not None or carve.channels is not None:
        nodes.append(Node("student:check", CheckCut, carve, inputs={"model": base}))
    if student.heal:
        nodes.append(_reading(student.heal, "student:text", CheckHeal, {"model": base}))
    return nodes


def student_nodes(recipe: Recipe) -> list[Node]:
    """The carved and distilled student, the same student without a teacher, and what ships."""
    train, fitted = recipe.train, teacher_of(recipe)
    carve = recipe.student.cut
    head, objective = recipe.student.head, objective_of(recipe)
    distil = DistilSettings(
        optimisation=part_of(Optimisation, train),
        together=part_of(Together, train),
        adapter=train.to_make,
        objective=objective,
        normalise=train.normalise,
        on_policy=train.on_policy,
        round_to_int4=train.round_to_int4,
        head=head,
        max_cut_off=train.max_cut_off,
        callbacks=train.callbacks,
    )
    cut = {"model": fitted, "data": rows_node(recipe), "answers": "curate"}
    if has_other_tokens(recipe):
        cut |= {"model": base_node(recipe), "teacher": fitted}
    heal = recipe.student.heal
    learns = {"student": "student:healed" if heal else "student:carved"}
    learns |= {"data": rows_node(recipe), "answers": "curate"}
    if has_other_tokens(recipe) or head == "tags" or all_needs(objective) & (OF_TEACHER | SPANS):
        learns["teacher"] = fitted
    nodes = [Node("student:carved", CarveStudent, carve, inputs=cut)]
    if heal:
        uncut = {"student": "student:carved", "teacher": cut["model"]}
        nodes.append(_reading(heal, "student:healed", Heal, {**uncut, "data": rows_node(recipe)}))
    nodes.append(Node("student", Distil, distil, inputs=learns, sources=own_terms(objective) | own_callbacks(recipe)))
    nodes += shipped_nodes(recipe, learns)
    if train.baseline:
        moved = part_of(Optimisation, train).model_copy(update={"epochs": train.baseline_epochs})
        alone = FitSettings(
            optimisation=moved,
            together=part_of(Together, train),
            adapter=train.to_make,
            round_to_int4=train.round_to_int4,
            head=head,
        )
        # Cut from the untouched base model: what the teacher learned must not reach the baseline by its weights.
        carved = {"model": base_node(recipe), "like": "student:carved"}
        nodes.append(Node("baseline:carved", CarveStudent, carve, inputs=carved))
        if heal:
            back = {"student": "baseline:carved", "teacher": base_node(recipe)}
            nodes.append(_reading(heal, "baseline:healed", Heal, back))
        begins = "baseline:healed" if heal else "baseline:carved"
        nodes.append(Node("baseline", Fit, alone, inputs={"model": begins, "data": "data"}))
    return nodes


def shipped_nodes(recipe: Recipe, learns: Mapping[str, str]) -> list[Node]:
    """What ships, found or made as the recipe says, and where that recovers from its rounding, the node before it.

    Args:
        learns: what the student learned from; it recovers on the same texts, and keeps the tokens of its answers.
    """
    ships, search = part_of(CompressSettings, recipe.compress), recipe.compress.search
    recover = RecoverSettings(
        optimisation=part_of(Optimisation, ships.recover or RecoverRecipe()),
        # Tokens are left out behind it.
        ships=ships.whole.model_copy(update={"recover": None}),
        head=recipe.student.head,
        max_cut_off=recipe.train.max_cut_off,
    )
    answers = learns.get("answers")
    reads = {**learns, "carved": learns["student"]} if ships.recover else {}
    if search:
        find = FindSettings(ships=ships, search=search, recover=recover if ships.recover else None)
        more = {name: node for name, node in reads.items() if name != "student"} if ships.recover else {}
        trims = "trim" in (search.candidates.vocabulary or [ships.vocabulary])
        more |= {"answers": answers} if trims and answers else {}
        return [Node("shipped", Search, find, {"data": "data", **more, "model": "student"})]
    if ships.recover is None:
        return [shipped_node("shipped", ships, "student", answers=answers)]
    recovered = Node("student:recovered", Recover, recover, {**reads, "student": "student"})
    return [recovered, shipped_node("shipped", ships, recovered.id, answers=answers)]


def _reading(heal: HealRecipe, node: str, stage: type[Heal | CheckHeal], inputs: Mapping[str, str]) -> Node:
    """A node that reads the text to heal on: that of the files, or of the rows in `data`."""
    settings = HealSettings(
        optimisation=part_of(Optimisation, heal),
        objective=heal.objective,
        normalise=heal.normalise,
        column=heal.column,
        tokens=heal.tokens,
        length=heal.length,
        every=heal.every,
    )
    sources = {f"{TEXT}{i}": path for i, path in enumerate(heal.text or [])}
    return Node(node, stage, settings, {"data": "data", **inputs}, sources | own_terms(heal.objective))
