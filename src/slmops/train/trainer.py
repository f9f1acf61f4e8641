"""Moving weights: transformers' Trainer with token-budget batches, float32 masters and timed checkpoints."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.data import DataLoader
from transformers import AutoConfig, Trainer, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from slmops.errors import BadInput
from slmops.models.layers import only_layers
from slmops.models.rounding import to_int4_grid
from slmops.models.source import load_model
from slmops.models.tag_head import TagHead, attach
from slmops.progress import Progress, Silent
from slmops.recipe.objective import Objective, TextTerm
from slmops.recipe.training import Fsdp, Optimisation, Rounding
from slmops.train.collate import collate
from slmops.train.events import FOLDER, check_tensorboard, event_files
from slmops.train.examples import Example, in_steps, schedule
from slmops.train.memory import available_bytes, check_memory, needed
from slmops.train.objectives.base import SPANS, STORED, STORED_SPANS
from slmops.train.objectives.imitate import Imitation
from slmops.train.objectives.make import check_on_policy
from slmops.train.objectives.observe import TeacherModel, answer_logits, label_weights
from slmops.train.objectives.text import cross_entropy
from slmops.train.on_policy import OwnAnswers, Writer
from slmops.train.optimiser import MasterAdamW, Round
from slmops.train.precision import Precision, resolve_precision
from slmops.train.processes import Processes
from slmops.train.sharding import check_sharding, gathered, shard, whole
from slmops.train.trunk import freeze, trunk_states
from slmops.train.watcher import Watcher, kept_state, last_checkpoint, step_of


@dataclass
class Trained:
    """A trained model in float32 and how it got there.

    Attributes:
        history: one entry per logged step: `step`, `tokens`, `seconds`, the mean of each loss term since the last, and
            `validation` (nats per answer token) where the validation examples were evaluated; see `Watcher`.
        seconds: of training alone: evaluation and checkpoints are not counted.
        figures: `precision` and the rates it was chosen by; with early stopping `validation_loss`, `best_step` and
            `steps`; with answers of the student's own `on_policy_tokens`, `on_policy_tokens_per_s` and the share of the
            time that went into writing them; and the step of each warning that was given (`overfitting_at_step`, ...).
    """

    model: transformers.PreTrainedModel
    history: list[dict[str, float]] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0
    figures: dict[str, float | str] = field(default_factory=dict)


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
    rounding: Rounding | None = None,
    head: TagHead | None = None,
    fsdp: Fsdp | None = None,
    progress: Progress | None = None,
    title: str = "train",
) -> Trained:
    """Train the model in `folder` on `examples` and return it, starting from the last whole checkpoint in `work`.

    The loss is the mean over the answer tokens of a step; prompts only give context. Without an objective the words
    alone are learned. With `rounding`, the matrices that ship with four bits are on their grid in every forward pass
    and in the result. With `settings.stop_early`, the weights of the lowest loss on `validation` come out.

    Below `torchrun` each process calls this with the same arguments and a `work` that all can read. The processes take
    alternate batches of a step, so a step is as large as `accumulate` batches of each; all of them return the same
    model.

    Args:
        normalise: divide every term of the objective by a running mean of its own size.
        compare_every: the objective is taken at every n-th answer token alone.
        on_policy: the student itself writes the answers of some batches; the terms that need given answers are left out
            there, and the others keep their weights.
        teacher: runs beside the student where the objective asks for more than its stored probabilities.
        head: takes the place of the model's own and is trained with it; the examples then have `labels`.
        fsdp: share the model out over the processes; see `slmops.train.sharding`.
        teacher_reads_once: before several passes it is run over the examples, and what it makes of them is kept.

    Raises:
        BadInput: the objective does not go with the model, the teacher or the examples, or the settings cannot be
            followed with what is here: memory, packages, validation examples.
        SlmopsError: the loss is no longer a number.
    """
    processes = Processes.joined()
    told = (progress if processes.first else None) or Silent()
    objective = objective or [TextTerm()]
    _check(settings, validation)
    check_on_policy(objective, on_policy.fraction if on_policy else 0.0)
    if fsdp:
        check_sharding(processes, settings, objective, rounding=rounding, normalise=normalise, head=head)
    available, last = available_bytes(), last_checkpoint(work)
    transformers.set_seed(seed)
    precision = _precision(settings, folder, last, processes, told)
    model = load_model(folder, dtype=precision.dtype)
    if head is not None:
        attach(model, head)
    grids = _grids(model, rounding)
    _freeze(model, settings.freeze_layers, grids)
    imitation = _imitation(
        objective,
        model,
        examples,
        teacher=teacher,
        still=settings.freeze_layers,
        normalise=normalise,
        every=compare_every,
    )
    plan = schedule([len(e) for e in examples], epochs=settings.epochs, batch_tokens=settings.batch_tokens, seed=seed)
    writer = Writer(on_policy, len(plan), seed) if on_policy and on_policy.fraction else None
    read = [*examples, *(validation if settings.stop_early else ())]
    # What the still layers make of answers that do not exist yet cannot be kept.
    from_below = writer is not None or imitation.reads_still_layers
    memory = needed(
        model,
        plan,
        read,
        settings,
        on_grid=grids,
        parts=processes.count if fsdp else 1,
        writer=writer,
        whole=from_below,
        teacher_bytes=imitation.teacher_bytes,
    )
    check_memory(memory, available, model, settings)
    if teacher_reads_once and settings.epochs > 1:
        imitation.read(examples, told)
    states = None if from_below else trunk_states(model, settings.freeze_layers, read, told)
    imitation.attach(model)
    if fsdp:
        shard(model, fsdp, processes)
    steps = in_steps(plan, settings.accumulate * processes.count)
    tokens = [sum(len(examples[i]) for batch in step for i in batch) for step in steps]
    trainer = _Trainer(
        model,
        read,
        processes.part(plan),
        settings,
        imitation,
        writer=writer,
        validation=_validation_batches(len(examples), validation, settings),
        grids=grids,
        states=states,
        sharded=fsdp is not None,
        seed=seed,
        watcher=Watcher(tokens, imitation.names, settings, precision, work=work, processes=processes, progress=told),
    )
    _run(trainer, model, last, told, title)
    return _finished(trainer, model, folder)


def _run(
    trainer: _Trainer, model: transformers.PreTrainedModel, last: Path | None, progress: Progress, title: str
) -> None:
    """Train from the checkpoint `last`, or from the start where there is none."""
    settings, watcher, done = trainer.settings, trainer.watcher, step_of(last)
    with ExitStack() as stack:
        if trainer.states is not None:
            stack.enter_context(only_layers(model, slice(settings.freeze_layers, None)))
        if settings.tensorboard and trainer.processes.first:
            watcher.record = stack.enter_context(event_files(watcher.work / FOLDER, resumed_at=done))
        watcher.task = stack.enter_context(progress.task(title, sum(watcher.tokens[done:]), "tokens"))
        trainer.train(resume_from_checkpoint=str(last) if last else None)


def _finished(trainer: _Trainer, model: transformers.PreTrainedModel, folder: Path) -> Trained:
    """The model with the weights that come out, in float32 and without what only its training needed."""
    watcher = trainer.watcher
    weights = watcher.result()
    made = load_model(folder, dtype=torch.float32) if trainer.sharded else model.float()
    with torch.no_grad():
        for weight, master in zip(_moving(made), weights, strict=True):
            weight.copy_(master)
    trainer.imitation.detach(model)
    return Trained(made.eval(), watcher.history, int(watcher.history[-1]["tokens"]), watcher.seconds, watcher.figures())


def _moving(model: transformers.PreTrainedModel) -> list[torch.nn.Parameter]:
    return [weight for weight in model.parameters() if weight.requires_grad]


def _check(settings: Optimisation, validation: Sequence[Example]) -> None:
    """Refuse before any work what settings ask for and this call or machine does not have."""
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


def _precision(
    settings: Optimisation, folder: Path, last: Path | None, processes: Processes, progress: Progress
) -> Precision:
    """What a checkpoint was trained in goes on in the same; else what the first process finds. Told where measured."""
    precision = _kept_precision(settings, last) or _found_precision(settings, folder, processes)
    if precision.fp32_gflops is not None:
        progress.note(precision.said())
    return precision


def _kept_precision(settings: Optimisation, last: Path | None) -> Precision | None:
    return Precision(**kept_state(last)["precision"]) if settings.precision == "auto" and last else None


def _found_precision(settings: Optimisation, folder: Path, processes: Processes) -> Precision:
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    found = resolve_precision(settings.precision, config)
    name = "bf16" if processes.first_says(found.name == "bf16") else "fp32"
    return Precision(name, found.fp32_gflops, found.bf16_gflops)


def _validation_batches(first: int, validation: Sequence[Example], settings: Optimisation) -> list[list[int]]:
    """The validation examples in batches, numbered from `first` on: behind the training examples."""
    if not settings.stop_early:
        return []
    batches = schedule([len(e) for e in validation], epochs=1, batch_tokens=settings.batch_tokens, seed=0)
    return [[first + i for i in batch] for batch in batches]


def _grids(model: transformers.PreTrainedModel, rounding: Rounding | None) -> dict[torch.Tensor, Round]:
    """The grid of each matrix that ships with four bits: linear weights and, with an int4 head, what is tied to it."""
    if rounding is None:
        return {}
    apart = model.get_output_embeddings() if rounding.head == "int8" else None
    linear = (module for module in model.modules() if isinstance(module, torch.nn.Linear))
    matrices = {module.weight for module in linear if module is not apart}
    return dict.fromkeys(matrices, partial(to_int4_grid, block_size=rounding.block_size))


def _freeze(model: transformers.PreTrainedModel, layers: int, grids: dict[torch.Tensor, Round]) -> None:
    """Let the lowest `layers` stay as they are, on the grid that they will ship on."""
    for weight in freeze(model, layers):
        if weight in grids:
            with torch.no_grad():
                weight.copy_(grids[weight](weight.float()))


class _Trainer(Trainer):
    """transformers' Trainer with our batches, our optimiser and our loss."""

    loss_is_scaled_for_ga = True
    """A batch's loss is scaled by its share of the step's answer tokens, not by one over the number of batches."""

    def __init__(
        self,
        model: transformers.PreTrainedModel,
        examples: Sequence[Example],
        plan: list[list[int]],
        settings: Optimisation,
        imitation: Imitation,
        *,
        writer: Writer | None,
        validation: list[list[int]],
        grids: dict[torch.Tensor, Round],
        states: list[torch.Tensor] | None,
        sharded: bool,
        seed: int,
        watcher: Watcher,
    ) -> None:
        """A trainer of this process's batches.

        Args:
            examples: to train on, and behind them those to validate with.
            plan: this process's batches, as numbers of examples.
            writer: has the student answer some of them itself.
            validation: batches of all processes together.
        """
        self.examples, self.plan, self.settings, self.imitation = examples, plan, settings, imitation
        self.writer, self.validation, self.processes = writer, validation, watcher.processes
        self.watcher, self.grids, self.states, self.sharded = watcher, grids, states, sharded
        self.answer_tokens = 0.0
        self.trainable = _moving(model)
        watcher.validate, watcher.weights = self.validation_loss, self.rounded_weights
        if settings.checkpoint_activations:
            _recompute_activations(model)
        arguments = TrainingArguments(
            output_dir=str(watcher.work),
            max_steps=len(watcher.tokens),
            gradient_accumulation_steps=settings.accumulate,
            seed=seed,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
            remove_unused_columns=False,
            max_grad_norm=1.0,
            use_cpu=not torch.cuda.is_available(),
        )
        super().__init__(model=model, args=arguments, train_dataset=_Numbers(len(examples)), callbacks=[watcher])
        self.remove_callback(transformers.trainer_callback.PrinterCallback)

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(
            self.train_dataset,
            batch_sampler=self.plan,
            collate_fn=self._collate,
        )

    def _collate(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        if not rows:
            # The other processes have a batch more: this one keeps step with a batch that counts for nothing.
            return {**self._collate([0]), "idle": torch.tensor(True)}
        batch = collate([self.examples[i] for i in rows], pad=0)
        if self.states is not None:
            batch["states"] = torch.nn.utils.rnn.pad_sequence([self.states[i] for i in rows], batch_first=True)
        return batch

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """The batches of a step, some with answers that the student writes now, with the weights that it has now.

        All of them before the first loss: a loss is scaled by its batch's share of the answer tokens of the step, in
        all processes, and how many those are is known when they are written.
        """
        given, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        begun, first = time.monotonic(), self.state.global_step * self.settings.accumulate
        batches = [self._written(first + place) or batch for place, batch in enumerate(given)]
        counted = [batch for batch in batches if "idle" not in batch]
        answers, tokens, own = self.processes.total(
            [
                sum(len(batch["target"]) for batch in counted),
                sum(int(batch["attention_mask"].sum()) for batch in counted),
                sum(len(batch["target"]) for batch in counted if "own" in batch),
            ]
        )
        self.answer_tokens = answers
        self.watcher.collected(int(tokens), int(own), time.monotonic() - begun)
        return batches, count

    def _written(self, place: int) -> dict[str, torch.Tensor] | None:
        """The batch at `place` of this process's with answers of the student's own; None where it keeps the given."""
        number = self.processes.number(place)
        if self.writer is None or number not in self.writer.batches:
            return None
        examples = [self.examples[i] for i in self.plan[place]]
        return {**collate(self.writer.write(self.model, examples, number), pad=0), "own": torch.tensor(True)}

    def create_optimizer(self, _model: Any = None) -> torch.optim.Optimizer:
        self.optimizer = MasterAdamW(
            self.trainable,
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            rounding=self.grids,
        )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or self.optimizer, lambda step: slope(step, num_training_steps, self.settings.warmup)
        )
        return self.lr_scheduler

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:  # noqa: ARG002
        # `self.model`, not what may be wrapped around it: `_clip_grad_norm` adds the gradients up.
        terms = self.imitation.terms(self.model, inputs)
        loss: Any = sum(factor * value for factor, value in terms.values())
        share = self._share(inputs)
        figures = {name: float(value.detach()) for name, (_, value) in terms.items()}
        comparable = "own" not in inputs or (self.writer is not None and self.writer.always)
        self.watcher.observe(figures, float(loss.detach()), share, comparable=comparable)
        loss = share * loss
        return (loss, None) if return_outputs else loss

    def _share(self, inputs: dict[str, torch.Tensor]) -> float:
        """The batch's share of the answer tokens of its step: shares make a mean over batches one over tokens."""
        return 0.0 if "idle" in inputs else len(inputs["target"]) / self.answer_tokens

    def _clip_grad_norm(self, model: Any) -> Any:
        if not self.sharded:
            # What a term learns has no gradient where this process's batches are without the term, and others' are not.
            moved = self.processes.total([weight.grad is not None for weight in self.trainable])
            for weight, somewhere in zip(self.trainable, moved, strict=True):
                if somewhere and weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
            self.processes.add_up([weight.grad for weight in self.trainable if weight.grad is not None])
        norm = whole(super()._clip_grad_norm(model))
        self.watcher.saw_gradient(float(norm))
        return norm

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean cross-entropy in nats of the validation answers' tokens, whatever the objective of training is."""
        self.model.eval()
        nats, tokens = 0.0, 0
        for rows in self.processes.part(self.validation):
            # One that has no rows left runs along: the others may need its part of the weights.
            inputs = self._prepare_inputs(self._collate(rows))
            weights = label_weights(self.model, inputs)
            text = cross_entropy(answer_logits(self.model, inputs), inputs["target"], weights)
            count = len(inputs["target"]) if rows else 0
            nats, tokens = nats + float(text) * count, tokens + count
        self.model.train()
        nats, every = self.processes.total([nats, tokens])
        return nats / every

    def rounded_weights(self) -> list[torch.Tensor]:
        """What the optimiser's masters are in the model's eyes, float32, in the order of `trainable`."""
        optimiser = self.optimizer.optimizer if hasattr(self.optimizer, "optimizer") else self.optimizer
        return [whole(weight) for weight in optimiser.rounded()]

    def save_model(self, *arguments: Any, **named: Any) -> None:
        # Of a model that is shared out, the masters in the optimiser's state are the weights.
        if not self.sharded:
            super().save_model(*arguments, **named)

    def _load_from_checkpoint(self, *arguments: Any, **named: Any) -> None:
        if not self.sharded:
            super()._load_from_checkpoint(*arguments, **named)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.sharded:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = gathered(self.optimizer.state_dict(), keep=self.processes.first)
        if self.processes.first:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            torch.save(state, Path(output_dir, OPTIMIZER_NAME))
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir, SCHEDULER_NAME))


def _recompute_activations(model: transformers.PreTrainedModel) -> None:
    """Keep the input of each layer only and run it again in the backward pass (Chen et al. 2016).

    Raises:
        BadInput: the architecture cannot.
    """
    if not model.supports_gradient_checkpointing:
        raise BadInput(
            f"{type(model).__name__} cannot compute its activations again", hint="set checkpoint_activations: false"
        )
    model.activation_checkpointing_enable()
    # It makes embeddings ask for a gradient, which still ones need not have.
    model.disable_input_require_grads()


def slope(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate at `step`: a linear rise, then a linear fall to a twentieth."""
    rise = max(1, round(warmup * steps))
    return (step + 1) / rise if step < rise else max(0.05, (steps - step) / max(1, steps - rise))


class _Numbers(torch.utils.data.Dataset[int]):
    """Row numbers: the rows themselves are looked up when a batch is collated."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> int:
        return i
