"""One training, from a folder and examples to moved weights: what it needs is checked first, then the loop runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig

from slmops.errors import BadInput
from slmops.models.adapters.attach import attach as put_adapter
from slmops.models.adapters.files import AdapterWeights
from slmops.models.device import fastest_device
from slmops.models.layers import only_layers
from slmops.models.source import load_model
from slmops.models.tag_head import TagHead, attach
from slmops.progress import Evaluated, Progress, Silent
from slmops.recipe.compress import CompressSettings
from slmops.recipe.objective import Objective, TextTerm
from slmops.recipe.own import CallbackSettings
from slmops.recipe.training import Fsdp, Optimisation, Rounding
from slmops.recipe.tuning import Adapter
from slmops.train.adapted import check_adapter, load_base, merged, put_in, taken_out
from slmops.train.calling import Callbacks, load_callbacks
from slmops.train.contrast import compared_share
from slmops.train.events import FOLDER, check_tensorboard, event_files
from slmops.train.examples import Example, in_steps, schedule
from slmops.train.forecast import lighter, seconds_of
from slmops.train.grids import grids_of
from slmops.train.loop import Loop, moving
from slmops.train.memory import Memory, available_bytes, needed, parameters_of
from slmops.train.objectives.base import SPANS, STATES, STORED, STORED_SPANS
from slmops.train.objectives.imitate import Imitation
from slmops.train.objectives.make import all_needs, check_on_policy
from slmops.train.objectives.observe import TeacherModel
from slmops.train.on_policy import OwnAnswers, Writer
from slmops.train.optimiser import Round
from slmops.train.precision import Precision, precisions
from slmops.train.processes import Processes
from slmops.train.remedy import remedy
from slmops.train.settle import Need, Settled, check_fits, settled
from slmops.train.sharding import check_sharding, shard
from slmops.train.trunk import freeze, trunk_states
from slmops.train.watcher import Watcher, kept_state, last_checkpoint, step_of


@dataclass
class Trained:
    """A trained model in float32 and how it got there.

    Attributes:
        history: one entry per logged step: `step`, `tokens`, what `Clock.taken` tells, the mean of each loss term
            since the last, and `validation` (nats per answer token) where the validation examples were evaluated; see
            `Watcher`.
        seconds: of training alone: evaluation and checkpoints are not counted.
        figures: `precision` and the rates it was chosen by; with early stopping `validation_loss`, `best_step` and
            `steps`; with terms that compare rows `compared_share`; with answers of the student's own
            `on_policy_tokens`, `on_policy_tokens_per_s` and the share of the time that went into writing them; where a
            callback ended it, `stopped_at_step` and `stopped_by`, its name and reason; and the step of each warning
            that was given (`overfitting_at_step`, ...).
            `batch_pieces` and `activations`, where these were left open.
            `parameters`, `trainable_parameters`, `estimated_memory_bytes`, `estimated_seconds` and
            `peak_memory_bytes`: what the training was expected to take before it began, and what it took. With an
            adapter that was merged also what of `slmops.train.adapted.Merged` is known.
        adapter: what was trained beside the weights; merged into `model`, or on it where it cannot be.
    """

    model: transformers.PreTrainedModel
    history: list[dict[str, float]] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0
    figures: dict[str, float | str] = field(default_factory=dict)
    adapter: AdapterWeights | None = None


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
    _check(settings, validation, processes)
    looking_on = Callbacks(load_callbacks(callbacks, evaluates=settings.stop_early is not None))
    check_on_policy(objective, on_policy.fraction if on_policy else 0.0)
    if fsdp:
        check_sharding(
            processes.count,
            settings,
            objective,
            rounding=rounding,
            normalise=normalise,
            labels=head is not None,
            adapter=adapter,
        )
    replaces = [
        ("rounding", rounding is not None),
        ("a head that labels", head is not None),
    ]
    if adapter:
        check_adapter(adapter, examples, context_of(folder), replaces_weights=replaces)
    available, last = available_bytes(), last_checkpoint(work)
    needs = all_needs(objective)
    plan = schedule(
        [len(e) for e in examples],
        epochs=settings.epochs,
        batch_tokens=settings.batch_tokens,
        seed=seed,
        labels=[e.label for e in examples] if STATES in needs else None,
    )
    compared = compared_share(needs, examples, plan)
    writer = Writer(on_policy, len(plan), seed) if on_policy and on_policy.fraction else None
    read = [*examples, *(validation if settings.stop_early else ())]
    asked, rows = settings, max(map(len, plan))

    def made(precision: Precision) -> _Made:
        transformers.set_seed(seed)
        # What is shared out need not fit into one process's GPU: layer by layer its parts go there.
        model = load_base(folder, adapter, dtype=precision.dtype, device="cpu" if fsdp else fastest_device())
        if head is not None:
            attach(model, head)
        grids = grids_of(model, rounding)
        _freeze(model, asked.freeze_layers, grids)
        if adapter:
            put_adapter(model, adapter, first=asked.freeze_layers)
        options = {"teacher": teacher, "still": asked.freeze_layers, "normalise": normalise, "every": compare_every}
        imitation = _imitation(objective, model, examples, **options)
        # What the still layers make of answers that do not exist yet cannot be kept.
        from_below = writer is not None or imitation.reads_still_layers

        def need(of: Optimisation, pieces: int) -> Memory:
            return needed(
                model,
                plan,
                read,
                of,
                on_grid=grids,
                pieces=pieces,
                parts=processes.count if fsdp else 1,
                writer=writer,
                whole=from_below,
                teacher_bytes=imitation.teacher_bytes,
                adapter=adapter,
            )

        can = bool(model.supports_gradient_checkpointing)
        found = settled(asked, need, available, can=can, rows=rows)
        return _Made(model, grids, imitation, from_below, need, can, found)

    precision, *others = _precisions(settings, folder, last, processes, told)
    one = made(precision)
    for other in others:
        if processes.total([not one.found.fits])[0]:
            # Of the two only one is in memory at a time.
            del one
            one = made(other)
            if processes.total([not one.found.fits])[0]:
                del one
                one = made(precision)
            else:
                told.note(f"training in {other.name}: {precision.name} would not fit into the memory")
                precision = other
    check_fits(
        one.found,
        lambda: _remedy(
            one, asked, folder, adapter, precision, plan, read, rows, [*replaces, ("fsdp", fsdp is not None)]
        ),
    )
    model, grids, imitation, from_below, found = one.model, one.grids, one.imitation, one.from_below, one.found
    settings, memory = found.settings, found.memory
    if asked != settings:
        told.note(found.said())
    if teacher_reads_once and settings.epochs > 1:
        imitation.read(examples, told)
    states = None if from_below else trunk_states(model, settings.freeze_layers, read, told)
    imitation.attach(model)
    if fsdp:
        shard(model, fsdp, processes)
    steps = in_steps(plan, settings.batches_per_step)
    tokens = [sum(len(examples[i]) for batch in step for i in batch) for step in steps]
    trainer = Loop(
        model,
        read,
        plan,
        settings,
        imitation,
        pieces=found.pieces,
        writer=writer,
        validation=_validation_batches(len(examples), validation, settings),
        grids=grids,
        states=states,
        sharded=fsdp is not None,
        adapted=adapter is not None,
        seed=seed,
        watcher=Watcher(
            tokens,
            imitation.names,
            settings,
            precision,
            held=memory.weights + memory.states + memory.teacher + (memory.optimiser if last else 0),
            work=work,
            processes=processes,
            progress=told,
            evaluated=evaluated,
            callbacks=looking_on,
        ),
    )
    estimated = seconds_of(model, plan, examples, settings, precision.name) / processes.count
    figures: dict[str, float | str] = {} if compared is None else {"compared_share": compared}
    figures |= {**sizes_of(model), "estimated_memory_bytes": memory.total, "estimated_seconds": estimated}
    figures |= _decided(asked, found)
    if processes.count > 1:
        figures["processes"] = processes.count
    _run(trainer, model, last, told, title)
    figures["peak_memory_bytes"] = trainer.watcher.peak.taken()
    if adapter:
        return _finished_adapter(trainer, model, folder, adapter, validation, figures)
    return _finished(trainer, model, folder, figures)


@dataclass
class _Made:
    """A model ready to be trained, and how that fits into the memory."""

    model: transformers.PreTrainedModel
    grids: dict[torch.Tensor, Round]
    imitation: Imitation
    from_below: bool
    need: Need
    can: bool
    found: Settled


def _remedy(
    one: _Made,
    asked: Optimisation,
    folder: Path,
    adapter: Adapter | None,
    precision: Precision,
    plan: Sequence[Sequence[int]],
    read: Sequence[Example],
    rows: int,
    replaces: Sequence[tuple[str, bool]],
) -> str:
    """What to change where it does not; what an adapter does not go with leaves the method as it is."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    still = any(wanted for _, wanted in replaces) or one.imitation.teacher_bytes
    methods = {} if still else lighter(config, asked, adapter, precision.dtype, plan, read)
    return remedy(asked, one.found, one.need, methods, read, can=one.can, rows=rows)


def _decided(asked: Optimisation, found: Settled) -> dict[str, float | str]:
    """What was left open and is decided, as figures."""
    decided: dict[str, float | str] = {}
    if asked.accumulate == "auto":
        decided["batch_pieces"] = found.pieces
    if asked.checkpoint_activations == "auto":
        decided["activations"] = "computed again" if found.settings.checkpoint_activations else "kept"
    return decided


def _run(trainer: Loop, model: transformers.PreTrainedModel, last: Path | None, progress: Progress, title: str) -> None:
    """Train from the checkpoint `last`, or from the start where there is none."""
    settings, watcher, done = trainer.settings, trainer.watcher, step_of(last)
    with ExitStack() as stack:
        if trainer.states is not None:
            stack.enter_context(only_layers(model, slice(settings.freeze_layers, None)))
        if settings.tensorboard and trainer.processes.first:
            watcher.record = stack.enter_context(event_files(watcher.work / FOLDER, resumed_at=done))
        watcher.task = stack.enter_context(progress.task(title, sum(watcher.tokens[done:]), "tokens"))
        trainer.train(resume_from_checkpoint=str(last) if last else None)


def _finished(
    trainer: Loop, model: transformers.PreTrainedModel, folder: Path, figures: dict[str, float | str]
) -> Trained:
    """The model with the weights that come out, in float32 and without what only its training needed."""
    watcher = trainer.watcher
    weights = watcher.result()
    made = load_model(folder, dtype=torch.float32) if trainer.sharded else model.float()
    put_in(made, weights)
    trainer.imitation.detach(model)
    return _told(trainer, made, figures)


def _finished_adapter(
    trainer: Loop,
    model: transformers.PreTrainedModel,
    folder: Path,
    adapter: Adapter,
    held_out: Sequence[Example],
    figures: dict[str, float | str],
) -> Trained:
    """The base in float32 with the adapter in its weights, or on it where it cannot be merged; and the adapter."""
    weights = trainer.watcher.result()
    trainer.imitation.detach(model)
    if trainer.sharded:
        model = load_base(folder, adapter, dtype=model.dtype, device=fastest_device())
        put_adapter(model, adapter, first=trainer.settings.freeze_layers)
    put_in(model, weights)
    made, found = taken_out(model, weights, folder, trainer.settings, adapter)
    kept = merged(made, model, held_out) if adapter.merges else None
    own = {"adapter_bytes": found.size_bytes, **(kept.figures() if kept else {})}
    return _told(trainer, made, {**figures, **own}, found)


def _told(
    trainer: Loop,
    made: transformers.PreTrainedModel,
    figures: dict[str, float | str],
    adapter: AdapterWeights | None = None,
) -> Trained:
    watcher = trainer.watcher
    tokens = int(watcher.history[-1]["tokens"])
    return Trained(
        made.cpu().eval(), watcher.history, tokens, watcher.clock.seconds, {**watcher.figures(), **figures}, adapter
    )


def sizes_of(model: transformers.PreTrainedModel) -> dict[str, float | str]:
    """`parameters`, those of an adapter included, and `trainable_parameters`."""
    return {"parameters": parameters_of(model), "trainable_parameters": sum(w.numel() for w in moving(model))}


def context_of(folder: Path) -> int:
    """Tokens that the model in `folder` may read."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return int(config.get_text_config().max_position_embeddings)


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
    objective: Objective, model: transformers.PreTrainedModel, examples: Sequence[Example], **others: Any
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


def _precisions(
    settings: Optimisation, folder: Path, last: Path | None, processes: Processes, progress: Progress
) -> list[Precision]:
    """What a checkpoint was trained in goes on in the same; else what the first process finds, and the other."""
    if settings.precision == "auto" and last:
        found = [Precision(**kept_state(last)["precision"])]
    else:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        found = precisions(settings.precision, config)
        bf16 = processes.first_says(found[0].name == "bf16")
        found.sort(key=lambda one: (one.name == "bf16") != bf16)
    if found[0].fp32_gflops is not None:
        progress.note(found[0].said())
    return found


def _validation_batches(first: int, validation: Sequence[Example], settings: Optimisation) -> list[list[int]]:
    """The validation examples in batches, numbered from `first` on: behind the training examples."""
    if not settings.stop_early:
        return []
    batches = schedule([len(e) for e in validation], epochs=1, batch_tokens=settings.batch_tokens, seed=0)
    return [[first + i for i in batch] for batch in batches]


def _freeze(model: transformers.PreTrainedModel, layers: int, grids: dict[torch.Tensor, Round]) -> None:
    """Let the lowest `layers` stay as they are, on the grid that they will ship on."""
    for weight in freeze(model, layers):
        if weight in grids:
            with torch.no_grad():
                weight.copy_(grids[weight](weight.float()))
