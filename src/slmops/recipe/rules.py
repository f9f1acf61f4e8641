"""What the parts of a recipe have to do with each other: rules that none of them can check alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from slmops.recipe import teaching_rules as teaching
from slmops.recipe.chat_template import TextTemplate
from slmops.recipe.objective import Contrast, CustomTerm, TextTerm
from slmops.recipe.several import SLOTTED, check_adapters, check_base, check_merges, check_slots
from slmops.recipe.teachers import TransformersTeacher
from slmops.recipe.teaching import TeachSettings
from slmops.recipe.trials import LOSS

if TYPE_CHECKING:
    from slmops.recipe.models import Recipe


def check(recipe: Recipe) -> None:
    """Refuse parts that are valid each by itself and do not go together.

    Raises:
        ValueError: says which and why.
    """
    for rule in RULES:
        rule(recipe)


def several_on_one_base(recipe: Recipe) -> None:
    if not recipe.adapters:
        if recipe.merge:
            raise ValueError("`merge` is of `adapters`, and this recipe has none")
        return
    if recipe.teachers:
        raise ValueError(
            "`teachers` and `adapters` exclude each other: adapters learn from labelled rows, and a student that "
            "is distilled has a recipe of its own"
        )
    check_base(recipe.student)
    check_adapters(recipe.adapters)
    check_merges(recipe.merge, recipe.adapters)
    if recipe.slots:
        check_slots(recipe.compress, searched=recipe.compress.search is not None)
    elif asked := [name for name in ("compress", "bundle") if name in recipe.model_fields_set]:
        odd = next(name for name, one in recipe.adapters.items() if one.train.method not in SLOTTED)
        raise ValueError(
            f"`{asked[0]}`: `{odd}` has `train.method: {recipe.adapters[odd].train.method}`, which does not stand "
            "beside a base, so nothing ships: leave it out, or take lora"
        )


def each_by_itself(recipe: Recipe) -> None:
    for name in recipe.adapters:
        try:
            recipe.of_adapter(name)
        except ValidationError as error:
            raise ValueError(f"`adapters.{name}`: {error.errors()[0]['ctx']['error']}") from None


def fine_tuned_alone(recipe: Recipe) -> None:
    """Without a teacher: what has a meaning then, and what does not."""
    if isinstance(recipe.train.general_text, Path) and (recipe.teachers or recipe.student.head == "tags"):
        raise ValueError(
            "`train.general_text` is read by a model before it is fine-tuned and after: leave it out with a teacher, "
            "from which the student is another model, and with `student.head: tags`, which does not write"
        )
    if recipe.teachers:
        if recipe.train.to_make and not recipe.train.to_make.merges:
            raise ValueError(
                f"`train.method: {recipe.train.method}` leaves an adapter that cannot be merged, so what is "
                "distilled could not ship: take lora"
            )
        return
    student, train = recipe.student, recipe.train
    if student.model is None:
        raise ValueError(
            "there is nobody to learn from: name a teacher in `teachers`, or, to fine-tune a model on the labelled "
            "rows alone, set `student.model`"
        )
    without = {
        "data.pool": recipe.data.pool is not None,
        "teach": recipe.teach != TeachSettings(),
        "student.carve": "carve" in student.model_fields_set,
        "student.heal": student.heal is not None,
        "train.normalise": train.normalise,
        "train.on_policy": train.on_policy is not None,
        "train.baseline_epochs": "baseline_epochs" in train.model_fields_set,
        "train.max_cut_off": "max_cut_off" in train.model_fields_set,
        "train.objective": "objective" in train.model_fields_set
        and any(not isinstance(term, TextTerm | CustomTerm | Contrast) for term in train.objective),
        "compress.recover": recipe.compress.recover is not None,
    }
    if asked := [name for name, wanted in without.items() if wanted]:
        raise ValueError(f"`{asked[0]}` needs a teacher, and this recipe has none: take it out, or name one")
    if student.head == "tags" and train.method != "full":
        raise ValueError(f"`student.head: tags` is a head to train, and `train.method: {train.method}` trains none")
    if not (recipe.adapters or recipe.ships) and (
        asked := [name for name in ("compress", "bundle") if name in recipe.model_fields_set]
    ):
        raise ValueError(
            f"`{asked[0]}`: an adapter of `train.method: {train.method}` cannot be merged, so nothing ships: leave "
            "it out, or take lora"
        )


def words_through_olive(recipe: Recipe) -> None:
    """Olive's trainer knows no teacher, only what one said."""
    named = recipe.teachers or "objective" in recipe.train.model_fields_set
    learned = [term.kind for term in recipe.train.objective] if named else ["text"]
    if recipe.train.backend == "olive" and (learned != ["text"] or recipe.train.on_policy):
        raise ValueError(
            "`train.backend: olive` learns given words alone: set `train.objective: {kind: text}`, without "
            "`train.on_policy`, or leave `backend` out"
        )


def one_grid(recipe: Recipe) -> None:
    learned, ships = recipe.train.round_to_int4, recipe.compress
    if learned is None or ships.precision != "int4" or ships.search:
        return
    if ships.recover:
        raise ValueError(
            "`train.round_to_int4` has learned on the grid already, so there is nothing for `compress.recover`"
        )
    wanted = ("rtn", learned.block_size, learned.head, True, 0, None)
    zeros, eight, pruned = ships.symmetric, ships.int8_layers, ships.sparsity
    if (ships.algorithm, ships.block_size, ships.head, zeros, eight, pruned) != wanted:
        raise ValueError(
            f"`train.round_to_int4` trains for rtn in blocks of {learned.block_size} with an {learned.head} head, "
            f"`compress` makes {ships.algorithm} in blocks of {ships.block_size} with an {ships.head} head: "
            "the student would be rounded twice"
        )


def learnable_by_its_head(recipe: Recipe) -> None:
    if recipe.student.head == "language":
        return
    if recipe.task.kind not in ("extraction", "classification", "nli"):
        raise ValueError(
            f"`student.head: tags` is for extraction, classification and nli, and `task.kind` is {recipe.task.kind}"
        )
    if recipe.train.accumulate == "auto":
        raise ValueError(
            "`train.accumulate: auto` goes by the memory that is free, and the loss of a batch with `student.head: "
            "tags` is no mean over its tokens, so in pieces it is another: set it to a number"
        )
    terms = recipe.train.objective if "objective" in recipe.train.model_fields_set else []
    if any(isinstance(term, TextTerm) and not term.plain for term in terms):
        raise ValueError(
            "`student.head: tags` learns labels, and `label_smoothing`, `focal` and `class_weights` are for a "
            "student that writes: leave them out"
        )
    if any(not isinstance(term, TextTerm | Contrast) for term in terms):
        raise ValueError(
            "`student.head: tags` learns labels, and `train.objective` compares next tokens or layers: leave it "
            "out, or set it to `kind: text`, with `supervised_contrastive` or `contrastive` beside it"
        )
    if terms and not any(isinstance(term, TextTerm) and term.weight for term in terms):
        raise ValueError("`student.head: tags` learns its labels by `kind: text`: set it beside the other terms")


def instruction_has_a_place(recipe: Recipe) -> None:
    asked = {"student": recipe.student.chat_template}
    asked |= {
        f"teachers.{i}": teacher.chat_template
        for i, teacher in enumerate(recipe.teachers)
        if isinstance(teacher, TransformersTeacher)
    }
    for place, template in asked.items():
        if recipe.task.instruction and isinstance(template, TextTemplate) and template.system is None:
            raise ValueError(
                f"`task.instruction` is a system message, and `{place}.chat_template` has no `system` to put it in"
            )


def can_be_tuned(recipe: Recipe) -> None:
    tune = recipe.tune
    if tune is None:
        return
    if recipe.teach.select:
        raise ValueError(
            "`tune`: with `teach.select` a student's settings decide which rows are bought, so every trial would "
            "buy others: take one of them out"
        )
    if recipe.executor == "local" and (tune.cpus, tune.gpus) != (1, 0):
        raise ValueError("`tune.cpus` and `tune.gpus` are what a trial takes of a cluster: set `executor: ray`")
    watched = {"`tune.prune`": tune.prune is not None, f"`tune.figure: {LOSS}`": tune.figure == LOSS}
    if (asked := [name for name, wanted in watched.items() if wanted]) and recipe.train.stop_early is None:
        raise ValueError(f"{asked[0]} goes by the validation loss, which only `train.stop_early` has measured")
    if tune.prune and (moved := [name for name in tune.space if name.startswith("train.stop_early")]):
        raise ValueError(
            f"`tune.prune` compares trials after as many passes, and `{moved[0]}` changes when they are looked at"
        )


RULES = (
    several_on_one_base,
    each_by_itself,
    fine_tuned_alone,
    words_through_olive,
    teaching.something_to_judge,
    one_grid,
    learnable_by_its_head,
    instruction_has_a_place,
    teaching.written_for_the_task,
    teaching.thinking_that_can_be_learned,
    teaching.learnable_from_an_endpoint,
    teaching.written_by_who_can,
    teaching.user_can_be_asked,
    teaching.selectable,
    can_be_tuned,
    teaching.nothing_leaves,
)
"""In the order in which they are told."""
