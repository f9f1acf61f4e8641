"""Moving weights: transformers' Trainer with token-budget batches, float32 masters and timed checkpoints."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from slmops.errors import BadInput, SlmopsError
from slmops.models.source import load_model
from slmops.progress import Progress, Silent, Task
from slmops.recipe.objective import Objective, TextTerm
from slmops.recipe.training import Optimisation, Rounding
from slmops.train.examples import Example, schedule
from slmops.train.objectives.base import STORED
from slmops.train.objectives.imitate import Imitation
from slmops.train.objectives.observe import TeacherModel
from slmops.train.optimiser import MasterAdamW, Round
from slmops.train.rounding import to_int4_grid
from slmops.train.trunk import freeze, only_layers, trunk_states

WHOLE = "whole"
"""Written into a checkpoint last: a folder without it was cut off by a kill."""


@dataclass
class Trained:
    """A trained model in float32 and how it got there.

    Attributes:
        history: one entry per logged step: `step`, `tokens`, `seconds` and the mean of each loss term since the last.
    """

    model: transformers.PreTrainedModel
    history: list[dict[str, float]] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0


def train(
    folder: Path,
    examples: Sequence[Example],
    settings: Optimisation,
    *,
    work: Path,
    seed: int,
    objective: Objective | None = None,
    normalise: bool = False,
    teacher: TeacherModel | None = None,
    rounding: Rounding | None = None,
    progress: Progress | None = None,
    title: str = "train",
) -> Trained:
    """Train the model in `folder` on `examples` and return it, starting from the last whole checkpoint in `work`.

    The loss is the mean over answer tokens; prompts only give context. Without an objective the words alone are
    learned. With `rounding`, the matrices that ship with four bits are on their grid in every forward pass and in the
    result.

    Args:
        normalise: divide every term of the objective by a running mean of its own size.
        teacher: runs beside the student where the objective asks for more than its stored probabilities.

    Raises:
        BadInput: the objective does not go with the model, the teacher or the examples.
        SlmopsError: the loss is no longer a number.
    """
    transformers.set_seed(seed)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[resolve_precision(settings.precision)]
    model = load_model(folder, dtype=dtype)
    grids = _grids(model, rounding)
    for weight in freeze(model, settings.freeze_layers):
        if weight in grids:
            with torch.no_grad():
                weight.copy_(grids[weight](weight.float()))
    imitation = _imitation(
        objective or [TextTerm()], model, examples, teacher=teacher, still=settings.freeze_layers, normalise=normalise
    )
    whole = imitation.reads_still_layers
    states = None if whole else trunk_states(model, settings.freeze_layers, examples, progress)
    imitation.attach(model)
    plan = schedule([len(e) for e in examples], epochs=settings.epochs, batch_tokens=settings.batch_tokens, seed=seed)
    tokens = [sum(len(examples[i]) for i in batch) for batch in plan]
    watcher = _Watcher(tokens, settings.checkpoint_seconds)
    trainer = _Trainer(
        model,
        examples,
        plan,
        settings,
        imitation,
        grids=grids,
        states=states,
        work=work,
        seed=seed,
        watcher=watcher,
    )
    last = last_checkpoint(work)
    with ExitStack() as stack:
        if states is not None:
            stack.enter_context(only_layers(model, slice(settings.freeze_layers, None)))
        remaining = sum(tokens[_step(last) if last else 0 :])
        watcher.task = stack.enter_context((progress or Silent()).task(title, remaining, "tokens"))
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    optimiser = trainer.optimizer.optimizer if hasattr(trainer.optimizer, "optimizer") else trainer.optimizer
    finished = optimiser.rounded()
    model.float()
    with torch.no_grad():
        for weight, master in zip(trainer.trainable, finished, strict=True):
            weight.copy_(master)
    imitation.detach(model)
    return Trained(model.eval(), watcher.history, sum(tokens), watcher.seconds)


def _imitation(
    objective: Objective, model: transformers.PreTrainedModel, examples: Sequence[Example], **others: Any
) -> Imitation:
    imitation = Imitation(objective, model, **others)
    if STORED in imitation.needs and any(example.soft is None for example in examples):
        raise BadInput(
            "the objective needs the teacher's stored probabilities, and not every example has them",
            hint="set `logits: online` for its terms, or teach.top_logits above 0",
        )
    return imitation


def resolve_precision(precision: str) -> str:
    """`auto` is bf16 where the processor multiplies it natively, else fp32."""
    if precision != "auto":
        return precision
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if native or torch.cuda.is_available() else "fp32"


def last_checkpoint(work: Path) -> Path | None:
    """The newest whole checkpoint below `work`."""
    whole = [path.parent for path in work.glob(f"checkpoint-*/{WHOLE}")]
    return max(whole, key=_step, default=None)


def _step(checkpoint: Path) -> int:
    """The optimiser step a checkpoint was written at, which transformers puts into its name."""
    return int(checkpoint.name.partition("-")[2])


def _grids(model: transformers.PreTrainedModel, rounding: Rounding | None) -> dict[torch.Tensor, Round]:
    """The grid of each matrix that ships with four bits: linear weights and, with an int4 head, what is tied to it."""
    if rounding is None:
        return {}
    apart = model.get_output_embeddings() if rounding.head == "int8" else None
    linear = (module for module in model.modules() if isinstance(module, torch.nn.Linear))
    matrices = {module.weight for module in linear if module is not apart}
    return dict.fromkeys(matrices, partial(to_int4_grid, block_size=rounding.block_size))


class _Trainer(Trainer):
    """transformers' Trainer with our batches, our optimiser and our loss."""

    def __init__(
        self,
        model: transformers.PreTrainedModel,
        examples: Sequence[Example],
        plan: list[list[int]],
        settings: Optimisation,
        imitation: Imitation,
        *,
        grids: dict[torch.Tensor, Round],
        states: list[torch.Tensor] | None,
        work: Path,
        seed: int,
        watcher: _Watcher,
    ) -> None:
        self.examples, self.plan, self.settings, self.imitation = examples, plan, settings, imitation
        self.watcher, self.grids, self.states = watcher, grids, states
        self.trainable = [weight for weight in model.parameters() if weight.requires_grad]
        arguments = TrainingArguments(
            output_dir=str(work),
            max_steps=len(plan),
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

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        terms = self.imitation.terms(model, inputs)
        loss = sum(factor * value for factor, value in terms.values())
        self.watcher.observe({name: float(value.detach()) for name, (_, value) in terms.items()})
        return (loss, None) if return_outputs else loss


def slope(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate at `step`: a linear rise, then a linear fall to a twentieth."""
    rise = max(1, round(warmup * steps))
    return (step + 1) / rise if step < rise else max(0.05, (steps - step) / max(1, steps - rise))


def collate(examples: Sequence[Example], *, pad: int) -> dict[str, torch.Tensor]:
    """Right-padded tensors of one batch.

    Returns:
        input_ids, attention_mask: int64 [rows, length]; predicts: bool [rows, length], the positions whose next
        token is an answer token; target: int64 [answer tokens] in row order, and soft_ids, soft_log_probs
        [answer tokens, k] where the examples carry them.
    """
    longest = max(len(example) for example in examples)
    ids = torch.full((len(examples), longest), pad)
    mask = torch.zeros_like(ids)
    predicts = torch.zeros_like(ids, dtype=torch.bool)
    for row, example in enumerate(examples):
        ids[row, : len(example)] = torch.tensor(example.prompt + example.answer)
        mask[row, : len(example)] = 1
        predicts[row, len(example.prompt) - 1 : len(example) - 1] = True
    batch = {"input_ids": ids, "attention_mask": mask, "predicts": predicts}
    batch["target"] = torch.tensor([token for example in examples for token in example.answer])
    soft = [example.soft for example in examples if example.soft is not None]
    if len(soft) == len(examples):
        batch["soft_ids"] = torch.cat([torch.from_numpy(targets.ids) for targets in soft])
        batch["soft_log_probs"] = torch.cat([torch.from_numpy(targets.log_probs) for targets in soft])
    return batch


class _Numbers(torch.utils.data.Dataset[int]):
    """Row numbers: the rows themselves are looked up when a batch is collated."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> int:
        return i


class _Watcher(TrainerCallback):
    """Reports progress, writes a checkpoint when its time has come, and stops at a loss that is no number."""

    LOG_EVERY = 5

    def __init__(self, tokens: list[int], checkpoint_seconds: float) -> None:
        self.tokens, self.checkpoint_seconds = tokens, checkpoint_seconds
        self.task: Task | None = None
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0
        self._recent: list[dict[str, float]] = []
        self._since = self._saved = time.monotonic()

    def observe(self, terms: dict[str, float]) -> None:
        if not all(math.isfinite(value) for value in terms.values()):
            raise SlmopsError(
                f"the loss is no longer a number ({terms})",
                hint="lower the learning rate",
            )
        self._recent.append(terms)

    def on_train_begin(self, args: Any, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        saved = last_checkpoint(Path(args.output_dir))
        if state.global_step and saved:
            kept = json.loads((saved / WHOLE).read_text())
            self.history, self.seconds = kept["history"], kept["seconds"]
        self._since = self._saved = time.monotonic()

    def on_step_end(self, _args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        step = state.global_step
        now = time.monotonic()
        self.seconds += now - self._since
        self._since = now
        if self.task:
            self.task.advance(self.tokens[step - 1], **self._recent[-1])
        if step % self.LOG_EVERY and step != len(self.tokens):
            return
        means = {name: sum(terms[name] for terms in self._recent) / len(self._recent) for name in self._recent[0]}
        self.history.append({"step": step, "tokens": sum(self.tokens[:step]), "seconds": self.seconds, **means})
        self._recent = []
        # A checkpoint falls on a log point, so that a resumed run logs the same means as an unbroken one.
        control.should_save = now - self._saved >= self.checkpoint_seconds and step < len(self.tokens)

    def on_save(self, args: Any, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        for path in folder.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        part = folder / f"{WHOLE}.part"
        part.write_text(json.dumps({"history": self.history, "seconds": self.seconds}))
        part.replace(folder / WHOLE)
        for older in Path(args.output_dir).glob("checkpoint-*"):
            if older != folder:
                shutil.rmtree(older)
        self._saved = self._since = time.monotonic()
