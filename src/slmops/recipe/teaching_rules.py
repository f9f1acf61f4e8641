"""What a recipe says of its teachers and what they are asked, part against part."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from slmops.recipe.task import ExtractionTask
from slmops.recipe.teachers import Asking, BundleTeacher, EndpointTeacher, TransformersTeacher, draws_of
from slmops.recipe.teaching import Budget

if TYPE_CHECKING:
    from slmops.recipe.models import Recipe


def something_to_judge(recipe: Recipe) -> None:
    judge = recipe.judge
    if judge is None:
        return
    if sum(draws_of(teacher) for _, teacher in recipe.answering) == 1:
        raise ValueError("`teach.combine.how: judged` has nothing to judge: one teacher answers, and its `n` is 1")
    if isinstance(judge, BundleTeacher):
        raise ValueError(f"`{judge.name}` is a bundle, which answers its own task and judges nothing")
    if draws_of(judge) > 1:
        raise ValueError(f"`{judge.name}` judges each row once: leave its `n` at 1")
    if isinstance(judge, TransformersTeacher) and judge.fit and "fit" in judge.model_fields_set:
        raise ValueError(f"`{judge.name}` judges as it is: its `fit` would teach it to answer; leave it out")


def written_for_the_task(recipe: Recipe) -> None:
    write, kind = recipe.teach.write, recipe.task.kind
    if recipe.teach.reason and kind != "maths":
        raise ValueError(
            f"`teach.reason` is for `task.kind: maths`, whose answers hold their steps; {kind} has bare answers"
        )
    if recipe.teach.converse and kind != "conversation":
        raise ValueError(f"`teach.converse` is for `task.kind: conversation`, and this is {kind}")
    labelled = kind in ("classification", "nli") or (isinstance(recipe.task, ExtractionTask) and recipe.task.label)
    if write and (write.per_label or write.balance) and not labelled:
        name = "per_label" if write.per_label else "balance"
        raise ValueError(f"`teach.write.{name}`: an answer of this task has no label; give `rows` alone")


def thinking_that_can_be_learned(recipe: Recipe) -> None:
    for teacher in recipe.endpoints:
        if teacher.reasoning == "strip":
            continue
        if teacher is recipe.judge:
            raise ValueError(f"`{teacher.name}` judges, so nothing that it thinks is learned: `reasoning: strip`")
        if recipe.task.kind in ("extraction", "classification", "nli"):
            raise ValueError(
                f"`{teacher.name}` has `reasoning: keep`, and an answer of {recipe.task.kind} is closed: no thinking "
                "can stand in it; set it to strip"
            )


def learnable_from_an_endpoint(recipe: Recipe) -> None:
    budget, bought = recipe.teach.budget, recipe.endpoints
    if not bought and budget != Budget():
        raise ValueError("`teach.budget` is for a teacher of `kind: endpoint`; one that runs here costs time alone")
    if budget.usd is not None and (free := [teacher.name for teacher in bought if teacher.price is None]):
        raise ValueError(
            f"`teach.budget.usd` needs the `price` of the teacher `{free[0]}`: `{{input_usd: …, output_usd: …}}`"
        )
    if not recipe.words_alone:
        return
    first = next(teacher for _, teacher in recipe.answering if not isinstance(teacher, TransformersTeacher))
    if recipe.student.model is None:
        what = "behind an endpoint" if isinstance(first, EndpointTeacher) else "a bundle"
        raise ValueError(
            f"`student.model` is missing: the teacher `{first.name}` is {what}, so there is nothing to cut a "
            "student from; name the model that is to learn"
        )
    kinds = {type(teacher) for teacher in recipe.teachers}
    for name, field in Asking.model_fields.items():
        if getattr(recipe.teach, name) == field.default:
            continue
        if name == "top_logits" and kinds != {EndpointTeacher}:
            raise ValueError(f"`teach.{name}`: no probabilities are kept, since `{first.name}` gives words alone")
        if TransformersTeacher not in kinds and not (name == "batch" and BundleTeacher in kinds):
            where = "runs here" if kinds == {EndpointTeacher} else "is exported here"
            raise ValueError(f"`teach.{name}` is for a teacher that {where}, and `{first.name}` does not")


def written_by_who_can(recipe: Recipe) -> None:
    asked = [name for name in ("write", "converse", "reason") if getattr(recipe.teach, name)]
    if asked and isinstance(recipe.teacher, BundleTeacher):
        raise ValueError(
            f"`teach.{asked[0]}` is the first teacher's work, and `{recipe.teacher.name}` is a bundle, which only "
            "answers its task: put another teacher first"
        )


def user_can_be_asked(recipe: Recipe) -> None:
    user = recipe.user
    if not isinstance(user, EndpointTeacher):
        return
    if not isinstance(recipe.teacher, EndpointTeacher):
        raise ValueError(
            f"`teach.converse.user`: `{user.name}` is behind an endpoint and the teacher `{recipe.teacher.name}` is "
            "not, so no budget is kept: take one for the user that runs here"
        )
    if recipe.teach.budget.usd is not None and user.price is None:
        raise ValueError("`teach.budget.usd` needs the `price` of `teach.converse.user` too")


def selectable(recipe: Recipe) -> None:
    select = recipe.teach.select
    if select is None:
        return
    if len(recipe.teachers) > 1:
        raise ValueError(f"`teach.select` asks one teacher round by round, and there are {len(recipe.teachers)}")
    if isinstance(recipe.teacher, BundleTeacher):
        raise ValueError("`teach.select` is for answers that cost something, and a bundle answers all at once")
    if recipe.teach.budget.minutes is not None:
        raise ValueError(
            "`teach.budget.minutes`: with `teach.select` the clock would decide what is bought; bound usd, tokens "
            "or requests"
        )
    if recipe.train.on_policy:
        raise ValueError(
            "`train.on_policy` learns from what the student writes, and `teach.select` goes by what given answers "
            "teach: take one of them out"
        )
    if recipe.student.heal:
        raise ValueError(
            "`student.heal` would heal another student in every round of `teach.select`: take one of them out"
        )
    if select.by == "uncertainty" and recipe.student.head == "tags":
        raise ValueError(
            "`teach.select.by: uncertainty` goes by what a student writes, and `student.head: tags` does not "
            "write: set it to random"
        )


def nothing_leaves(recipe: Recipe) -> None:
    if recipe.privacy.egress == "anywhere":
        return
    asked = {f"the teacher `{teacher.name}`": teacher.base_url for teacher in recipe.endpoints}
    if isinstance(recipe.user, EndpointTeacher):
        asked["`teach.converse.user`"] = recipe.user.base_url
    if recipe.evaluate.judge and recipe.evaluate.judge.base_url:
        asked["`evaluate.judge`"] = recipe.evaluate.judge.base_url
    for who, where in asked.items():
        if not recipe.privacy.is_local(where):
            raise ValueError(
                f"{who} is at {urlsplit(where).netloc}, and `privacy.egress: local-only` lets no text leave this "
                "machine"
            )
