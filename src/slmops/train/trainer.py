"""Moving weights: transformers' Trainer with token-budget batches, float32 masters and timed checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.data import DataLoader
from transformers import AutoConfig, Trainer, TrainingArguments

from slmops.errors import BadInput
from slmops.models.source import load_model
from slmops.progress import Progress, Silent
from slmops.recipe.objective import Objective, TextTerm
from slmops.recipe.training import Optimisation, Rounding
from slmops.train.events import FOLDER, check_tensorboard, event_files
from slmops.train.examples import Aligned, Example, in_steps, schedule
from slmops.train.memory import available_bytes, check_memory, needed
from slmops.train.objectives.base import SPANS, STORED, STORED_SPANS
from slmops.train.objectives.imitate import Imitation
from slmops.train.objectives.observe import TeacherModel, answer_logits
from slmops.train.objectives.text import cross_entropy
from slmops.train.optimiser import MasterAdamW, Round
from slmops.train.precision import Precision, resolve_precision
from slmops.train.processes import Processes
from slmops.train.rounding import to_int4_grid
from slmops.train.trunk import freeze, only_layers, trunk_states
from slmops.train.watcher import Watcher, kept_state, last_checkpoint, step_of


@dataclass
class Trained:
    """A trained model in float32 and how it got there.

    Attributes:
        history: one entry per logged step: `step`, `tokens`, `seconds`, the mean of each loss term since the last, and
            `validation` (nats per answer token) where the validation examples were evaluated.
        seconds: of training alone: evaluation and checkpoints are not counted.
        figures: `precision` and the rates it was chosen by; with early stopping `validation_loss`, `best_step` and
            `steps`; and the step of each warning that was given (`overfitting_at_step`, ...).
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
    teacher: TeacherModel | None = None,
    rounding: Rounding | None = None,
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
        teacher: runs beside the student where the objective asks for more than its stored probabilities.

    Raises:
        BadInput: the objective does not go with the model, the teacher or the examples, or the settings cannot be
            followed with what is here: memory, packages, validation examples.
        SlmopsError: the loss is no longer a number.
    """
    processes = Processes.joined()
    told = (progress if processes.first else None) or Silent()
    _check(settings, validation)
    available, last = available_bytes(), last_checkpoint(work)
    transformers.set_seed(seed)
    precision = _precision(settings, folder, last, processes)
    if precision.fp32_gflops is not None:
        told.note(precision.said())
    model = load_model(folder, dtype=precision.dtype)
    grids = _grids(model, rounding)
    _freeze(model, settings.freeze_layers, grids)
    imitation = _imitation(
        objective or [TextTerm()], model, examples, teacher=teacher, still=settings.freeze_layers, normalise=normalise
    )
    plan = schedule([len(e) for e in examples], epochs=settings.epochs, batch_tokens=settings.batch_tokens, seed=seed)
    every = [*examples, *(validation if settings.stop_early else ())]
    check_memory(needed(model, plan, every, settings), available, model, settings)
    whole = imitation.reads_still_layers
    states = None if whole else trunk_states(model, settings.freeze_layers, every, told)
    imitation.attach(model)
    steps = [[i for batch in step for i in batch] for step in in_steps(plan, settings.accumulate * processes.count)]
    tokens = [sum(len(examples[i]) for i in step) for step in steps]
    watcher = Watcher(tokens, settings, precision, work=work, processes=processes, progress=told)
    trainer = _Trainer(
        model,
        every,
        processes.part(plan),
        settings,
        imitation,
        answers=[sum(len(examples[i].answer) for i in step) for step in steps],
        validation=_validation_batches(len(examples), validation, settings),
        grids=grids,
        states=states,
        work=work,
        seed=seed,
        watcher=watcher,
        processes=processes,
    )
    with ExitStack() as stack:
        if states is not None:
            stack.enter_context(only_layers(model, slice(settings.freeze_layers, None)))
        if settings.tensorboard and processes.first:
            watcher.record = stack.enter_context(event_files(work / FOLDER, resumed_at=step_of(last)))
        watcher.task = stack.enter_context(told.task(title, sum(tokens[step_of(last) :]), "tokens"))
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    finished = watcher.result()
    model.float()
    with torch.no_grad():
        for weight, master in zip(trainer.trainable, finished, strict=True):
            weight.copy_(master)
    imitation.detach(model)
    return Trained(
        model.eval(), watcher.history, int(watcher.history[-1]["tokens"]), watcher.seconds, watcher.figures()
    )


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


def _precision(settings: Optimisation, folder: Path, last: Path | None, processes: Processes) -> Precision:
    """What a checkpoint was trained in goes on in the same; else what the first process finds."""
    if settings.precision == "auto" and last:
        return Precision(**kept_state(last)["precision"])
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
        answers: list[int],
        validation: list[list[int]],
        grids: dict[torch.Tensor, Round],
        states: list[torch.Tensor] | None,
        work: Path,
        seed: int,
        watcher: Watcher,
        processes: Processes,
    ) -> None:
        """A trainer of this process's batches.

        Args:
            examples: to train on, and behind them those to validate with.
            plan: this process's batches, as numbers of examples.
            answers: answer tokens of each step, in the batches of all processes together.
            validation: batches of all processes together.
        """
        self.examples, self.plan, self.settings, self.imitation = examples, plan, settings, imitation
        self.answers, self.validation, self.processes = answers, validation, processes
        self.watcher, self.grids, self.states = watcher, grids, states
        self.trainable = [weight for weight in model.parameters() if weight.requires_grad]
        watcher.validate, watcher.weights = self.validation_loss, self.rounded_weights
        if settings.checkpoint_activations:
            _recompute_activations(model)
        arguments = TrainingArguments(
            output_dir=str(work),
            max_steps=len(answers),
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
        self.watcher.observe(figures, float(loss.detach()), share)
        loss = share * loss
        return (loss, None) if return_outputs else loss

    def _share(self, inputs: dict[str, torch.Tensor]) -> float:
        """The batch's share of the answer tokens of its step: shares make a mean over batches one over tokens."""
        return 0.0 if "idle" in inputs else len(inputs["target"]) / self.answers[self.state.global_step]

    def _clip_grad_norm(self, model: Any) -> Any:
        self.processes.add_up([weight.grad for weight in self.trainable if weight.grad is not None])
        norm = super()._clip_grad_norm(model)
        self.watcher.saw_gradient(float(norm))
        return norm

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean cross-entropy in nats of the validation answers' tokens, whatever the objective of training is."""
        self.model.eval()
        nats, tokens = 0.0, 0
        for rows in self.processes.part(self.validation):
            if rows:
                inputs = self._prepare_inputs(self._collate(rows))
                text = cross_entropy(answer_logits(self.model, inputs), inputs["target"])
                nats, tokens = nats + float(text) * len(inputs["target"]), tokens + len(inputs["target"])
        self.model.train()
        nats, count = self.processes.total([nats, tokens])
        return nats / count

    def rounded_weights(self) -> list[torch.Tensor]:
        """What the optimiser's masters are in the model's eyes, float32, in the order of `trainable`."""
        optimiser = self.optimizer.optimizer if hasattr(self.optimizer, "optimizer") else self.optimizer
        rounded: list[torch.Tensor] = optimiser.rounded()
        return rounded


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


def collate(examples: Sequence[Example], *, pad: int) -> dict[str, torch.Tensor]:
    """Right-padded tensors of one batch.

    Returns:
        input_ids, attention_mask: int64 [rows, length]; predicts: bool [rows, length], the positions whose next
        token is an answer token; target: int64 [answer tokens] in row order, and soft_ids, soft_log_probs
        [answer tokens, k] where the examples carry them. Where they are aligned with the teacher's tokens, what
        `collate_aligned` gives.
    """
    batch = _padded([(example.prompt, example.answer) for example in examples], pad)
    soft = [example.soft for example in examples if example.soft is not None]
    if len(soft) == len(examples):
        batch["soft_ids"] = torch.cat([torch.from_numpy(targets.ids) for targets in soft])
        batch["soft_log_probs"] = torch.cat([torch.from_numpy(targets.log_probs) for targets in soft])
    aligned = [example.aligned for example in examples if example.aligned is not None]
    return batch | (collate_aligned(aligned, pad=pad) if len(aligned) == len(examples) else {})


def collate_aligned(aligned: Sequence[Aligned], *, pad: int) -> dict[str, torch.Tensor]:
    """The spans of one batch, numbered through it, and its texts in the teacher's tokens.

    Returns:
        span_of: int64 [answer tokens], the span of each of the student's; span_log_probs: float32 [spans];
        span_begins: float32 [spans, k]; teacher_ids, teacher_attention_mask, teacher_predicts, teacher_target and
        teacher_span_of as their counterparts of the student.
    """
    theirs, ours = (
        torch.cat([torch.from_numpy(np.diff(each.ends[:, side], prepend=0)) for each in aligned]) for side in (0, 1)
    )
    number = torch.arange(len(ours))
    padded = _padded([(each.prompt, each.answer) for each in aligned], pad)
    padded["ids"] = padded.pop("input_ids")
    return {
        "span_of": number.repeat_interleave(ours),
        "span_log_probs": torch.cat([torch.from_numpy(each.log_probs) for each in aligned]),
        "span_begins": torch.cat([torch.from_numpy(each.begins) for each in aligned]),
        "teacher_span_of": number.repeat_interleave(theirs),
        **{f"teacher_{name}": tensor for name, tensor in padded.items()},
    }


def _padded(rows: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], pad: int) -> dict[str, torch.Tensor]:
    """Prompts and answers, right-padded: `input_ids`, `attention_mask`, `predicts` and `target` of `collate`."""
    longest = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros_like(ids)
    predicts = torch.zeros_like(ids, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(rows):
        length = len(prompt) + len(answer)
        ids[row, :length] = torch.tensor(prompt + answer)
        mask[row, :length] = 1
        predicts[row, len(prompt) - 1 : length - 1] = True
    target = torch.tensor([token for _, answer in rows for token in answer])
    return {"input_ids": ids, "attention_mask": mask, "predicts": predicts, "target": target}


class _Numbers(torch.utils.data.Dataset[int]):
    """Row numbers: the rows themselves are looked up when a batch is collated."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> int:
        return i
