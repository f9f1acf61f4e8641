"""One training, from a folder and examples to moved weights: what it needs is checked first, then the loop runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig

from slmops.errors import BadInput
from slmops.models.layers import only_layers
from slmops.models.tag_head import TagHead
from slmops.progress import Evaluated, Progress, Silent
from slmops.recipe.compress import CompressSettings
from slmops.recipe.objective import Objective, TextTerm
from slmops.recipe.own import CallbackSettings
from slmops.recipe.training import Fsdp, Optimisation, Rounding
from slmops.recipe.tuning import Adapter
from slmops.train.adapted import check_adapter
from slmops.train.calling import Callbacks, load_callbacks
from slmops.train.checkpoint import last_checkpoint, step_of
from slmops.train.contrast import compared_share
from slmops.train.events import FOLDER, check_tensorboard, event_files
from slmops.train.examples import Example, in_steps, schedule
from slmops.train.loop import Loop
from slmops.train.made import Reading, Wanted, make
from slmops.train.objectives.base import SPANS, STATES, STORED, STORED_SPANS
from slmops.train.objectives.imitate import Imitation
from slmops.train.objectives.make import all_needs, check_on_policy
from slmops.train.objectives.observe import TeacherModel
from slmops.train.on_policy import OwnAnswers, Writer
from slmops.train.processes import Processes
from slmops.train.sharding import check_sharding, shard
from slmops.train.trained import Trained, finished, finished_adapter
from slmops.train.trunk import trunk_states
from slmops.train.watcher import Watcher


def train(
    folder: Path,
    examples: Sequence[Example],
    settings: Optimisation,
    *,
    work: Path,
    seed: int,
    validation: Sequence[Example] = (),
    objective: Objective | None = None,
    normalise: bool = False,
    compare_every: int = 1,
    on_policy: OwnAnswers | None = None,
    teacher: TeacherModel | None = None,
    teacher_reads_once: bool = False,
    rounding: Rounding | CompressSettings | None = None,
    head: TagHead | None = None,
    adapter: Adapter | None = None,
    fsdp: Fsdp | None = None,
    callbacks: Sequence[CallbackSettings] = (),
    evaluated: Evaluated | None = None,
    progress: Progress | None = None,
    title: str = "train",
) -> Trained:
    """Train the model in `folder` on `examples` and return it, starting from the last whole checkpoint in `work`.

    The loss is the mean over the answer tokens of a step; prompts only give context. Without an objective the words
    alone are learned. With `rounding`, the matrices that ship with few bits are on their grid in every forward pass
    and in the result; see `grids_of`. With `settings.stop_early`, the weights of the lowest loss on `validation` come
    out.

    Below a launcher each process calls this with the same arguments and a `work` that all can read. The processes share
    the `accumulate` batches of a step, so what is learned does not depend on how many they are, and one number of them
    goes on from a checkpoint of another; all of them return the same model.

    Args:
        normalise: divide every term of the objective by a running mean of its own size.
        compare_every: the objective is taken at every n-th answer token alone.
        on_policy: the student itself writes the answers of some batches; the terms that need given answers are left out
            there, and the others keep their weights.
        teacher: runs beside the student where the objective asks for more than its stored probabilities.
        head: takes the place of the model's own and is trained with it; the examples then have `labels`.
        adapter: leave every weight still and train this beside them; what it becomes when it is merged is compared with
            what was trained on `validation`.
        fsdp: share the model out over the processes; see `slmops.train.sharding`.
        callbacks: the user's own, which look on; see `slmops.train.callbacks`.
        evaluated: told of every evaluation, again of those before the checkpoint; what it raises ends the training.
        teacher_reads_once: before several passes it is run over the examples, and what it makes of them is kept.

    Raises:
        BadInput: the objective does not go with the model, the teacher or the examples, a callback fails, or the
            settings cannot be followed with what is here: memory, packages, validation examples.
        SlmopsError: the loss is no longer a number.
    """
    processes = Processes.joined()
    told = (progress if processes.first else None) or Silent()
    objective = objective or [TextTerm()]
    options = {"teacher": teacher, "still": settings.freeze_layers, "normalise": normalise, "every": compare_every}
    wanted = Wanted(
        folder,
        settings,
        seed,
        imitate=partial(_imitation, objective, examples, **options),
        rounding=rounding,
        head=head,
        adapter=adapter,
        fsdp=fsdp,
    )
    _check(settings, validation, processes)
    looking_on = Callbacks(load_callbacks(callbacks, evaluates=settings.stop_early is not None))
    check_on_policy(objective, on_policy.fraction if on_policy else 0.0)
    _check_goes_together(wanted, objective, examples, processes, normalise=normalise)
    plan = _plan(objective, examples, settings, seed)
    compared = compared_share(all_needs(objective), examples, plan)
    writer = Writer(on_policy, len(plan), seed) if on_policy and on_policy.fraction else None
    read = [*examples, *(validation if settings.stop_early else ())]
    last = last_checkpoint(work)
    made = make(wanted, Reading(plan, read, writer), processes, told, last=last)
    model, imitation, found = made.model, made.imitation, made.found
    if settings != found.settings:
        told.note(found.said())
    settings = found.settings
    if teacher_reads_once and settings.epochs > 1:
        imitation.read(examples, told)
    states = None if made.from_below else trunk_states(model, settings.freeze_layers, read, told)
    imitation.attach(model)
    if fsdp:
        shard(model, fsdp, processes)
    trainer = Loop(
        made,
        validation=_validation_batches(len(examples), validation, settings),
        states=states,
        watcher=Watcher(
            [sum(len(read[i]) for batch in step for i in batch) for step in in_steps(plan, settings.batches_per_step)],
            imitation.names,
            settings,
            made.precision,
            held=made.held(),
            work=work,
            processes=processes,
            progress=told,
            evaluated=evaluated,
            callbacks=looking_on,
        ),
    )
    figures: dict[str, float | str] = {} if compared is None else {"compared_share": compared}
    figures |= made.figures(processes)
    _run(trainer, model, last, told, title)
    figures["peak_memory_bytes"] = trainer.watcher.peak.taken()
    if adapter:
        return finished_adapter(trainer, model, folder, adapter, validation, figures)
    return finished(trainer, model, folder, figures)


def _run(trainer: Loop, model: transformers.PreTrainedModel, last: Path | None, progress: Progress, title: str) -> None:
    """Train from the checkpoint `last`, or from the start where there is none."""
    settings, watcher, done = trainer.settings, trainer.watcher, step_of(last)
    with ExitStack() as stack:
        if trainer.states is not None:
            stack.enter_context(only_layers(model, slice(settings.freeze_layers, None)))
        if settings.tensorboard and trainer.processes.first:
            watcher.record = stack.enter_context(event_files(watcher.work / FOLDER, resumed_at=done))
        watcher.task = stack.enter_context(progress.task(title, sum(watcher.tokens[done:]), "tokens"))
        trainer.run(last)


def context_of(folder: Path) -> int:
    """Tokens that the model in `folder` may read."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return int(config.get_text_config().max_position_embeddings)


def _check_goes_together(
    wanted: Wanted,
    objective: Objective,
    examples: Sequence[Example],
    processes: Processes,
    *,
    normalise: bool,
) -> None:
    """Refuse what a model that is shared out, or an adapter, does not go with."""
    if wanted.fsdp:
        check_sharding(
            processes.count,
            wanted.settings,
            objective,
            rounding=wanted.rounding,
            normalise=normalise,
            labels=wanted.head is not None,
            adapter=wanted.adapter,
        )
    if wanted.adapter:
        check_adapter(wanted.adapter, examples, context_of(wanted.folder), replaces_weights=wanted.replaces)


def _plan(objective: Objective, examples: Sequence[Example], settings: Optimisation, seed: int) -> list[list[int]]:
    """The batches of all passes; where rows are compared with each other, with several of a label in each."""
    return schedule(
        [len(e) for e in examples],
        epochs=settings.epochs,
        batch_tokens=settings.batch_tokens,
        seed=seed,
        labels=[e.label for e in examples] if STATES in all_needs(objective) else None,
    )


def _check(settings: Optimisation, validation: Sequence[Example], processes: Processes) -> None:
    """Refuse before any work what settings ask for and this call or machine does not have."""
    if processes.count > settings.batches_per_step:
        raise BadInput(
            f"{processes.count} processes share the batches of a step, and accumulate has {settings.batches_per_step}",
            hint="raise accumulate, and lower batch_tokens as much for a step of the same size",
        )
    if settings.stop_early and not validation:
        raise BadInput("stop_early needs validation examples, and there are none", hint="set data.split.validation")
    if settings.tensorboard:
        check_tensorboard()


def _imitation(
    objective: Objective, examples: Sequence[Example], model: transformers.PreTrainedModel, **others: Any
) -> Imitation:
    imitation = Imitation(objective, model, **others)
    if STORED in imitation.needs and any(example.soft is None for example in examples):
        raise BadInput(
            "the objective needs the teacher's stored probabilities, and not every example has them",
            hint="set `logits: online` for its terms, or teach.top_logits above 0",
        )
    _check_aligned(imitation.needs, examples)
    return imitation


def _check_aligned(needs: frozenset[str], examples: Sequence[Example]) -> None:
    """Refuse terms that go by spans where examples have none, or nothing of the teacher's to go with them."""
    if needs & SPANS and any(example.aligned is None for example in examples):
        raise BadInput(
            "the objective goes by spans of text, and not every example is aligned with the teacher's tokens",
            hint="align them: slmops.train.alignment",
        )
    if STORED_SPANS in needs and not all(example.aligned.begins.shape[1] for example in examples if example.aligned):
        raise BadInput(
            "the objective needs the teacher's stored probabilities, and none were kept",
            hint="set `logits: online` for its terms, or teach.top_logits above 0",
        )


def _validation_batches(first: int, validation: Sequence[Example], settings: Optimisation) -> list[list[int]]:
    """The validation examples in batches, numbered from `first` on: behind the training examples."""
    if not settings.stop_early:
        return []
    batches = schedule([len(e) for e in validation], epochs=1, batch_tokens=settings.batch_tokens, seed=0)
    return [[first + i for i in batch] for batch in batches]
