"""Moving weights: transformers' Trainer with token-budget batches, float32 masters and timed checkpoints."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from transformers.utils import SAFE_WEIGHTS_NAME

from slmops.errors import BadInput
from slmops.train.collate import collate
from slmops.train.examples import in_pieces
from slmops.train.made import Made, moving
from slmops.train.objectives.observe import answer_logits, label_weights
from slmops.train.objectives.text import cross_entropy
from slmops.train.optimiser import MasterAdamW
from slmops.train.sharding import gathered, whole
from slmops.train.shared import shared_tokens, shares
from slmops.train.watcher import Watcher

Pieces = dict[str, list[dict[str, torch.Tensor]]]
"""A batch as `pieces`, collated each for itself. Its loss is the sum of theirs, scaled by their shares of the step."""


class Loop(Trainer):
    """transformers' Trainer with our batches, our optimiser and our loss."""

    loss_is_scaled_for_ga = True
    """A batch's loss is scaled by its share of the step's answer tokens, not by one over the number of batches."""

    def __init__(
        self,
        made: Made,
        *,
        validation: list[list[int]],
        states: list[torch.Tensor] | None,
        watcher: Watcher,
    ) -> None:
        """A trainer of this process's batches.

        Args:
            validation: batches of all processes together, as numbers of examples.
            states: what the still layers make of each example, where they need not run again.
        """
        model, batches, settings = made.model, made.reading.batches, made.found.settings
        self.examples, self.writer, self.validation = made.reading.examples, made.reading.writer, validation
        self.settings, self.imitation, self.pieces = settings, made.imitation, made.found.pieces
        self.seed, self.processes, self.watcher = made.wanted.seed, watcher.processes, watcher
        self.numbers = self.processes.part(len(batches), settings.batches_per_step)
        self.plan = [[] if number is None else list(batches[number]) for number in self.numbers]
        self.each = self.processes.share(settings.batches_per_step)
        self.grids, self.states, self.sharded = made.grids, states, made.wanted.fsdp is not None
        # Where an adapter moves, a checkpoint leaves the weights of the model out.
        self.masters_are_all = self.sharded or made.wanted.adapter is not None
        self.shares = shares(model, settings, whole=states is None, alone=made.alone)
        self.answer_tokens = 0.0
        self.trainable = moving(model)
        watcher.validate, watcher.weights = self.validation_loss, self.rounded_weights
        if settings.checkpoint_activations:
            _recompute_activations(model)
        arguments = TrainingArguments(
            output_dir=str(watcher.work),
            max_steps=len(watcher.tokens),
            gradient_accumulation_steps=self.each,
            seed=self.seed,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
            remove_unused_columns=False,
            max_grad_norm=1.0,
            use_cpu=not torch.cuda.is_available(),
        )
        super().__init__(model=model, args=arguments, train_dataset=_Numbers(len(self.examples)), callbacks=[watcher])
        self.remove_callback(transformers.trainer_callback.PrinterCallback)

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(
            self.train_dataset,
            batch_sampler=self.plan,
            collate_fn=self._collate_pieces,
        )

    def _collate_pieces(self, rows: Sequence[int]) -> Pieces:
        return {"pieces": [self._collate(piece) for piece in in_pieces(rows, self.pieces)]}

    def _collate(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        if not rows:
            # The other processes have a batch more: this one keeps step with a batch that counts for nothing.
            return {**self._collate([0]), "idle": torch.tensor(True)}
        batch = collate([self.examples[i] for i in rows], pad=0)
        if self.states is not None:
            batch["states"] = torch.nn.utils.rnn.pad_sequence([self.states[i] for i in rows], batch_first=True)
        if self.shares and (shared := shared_tokens([self.examples[i] for i in rows])):
            batch["shared"] = torch.tensor(shared)
        return batch

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """The batches of a step, some with answers that the student writes now, with the weights that it has now.

        All of them before the first loss: a loss is scaled by its batch's share of the answer tokens of the step, in
        all processes, and how many those are is known when they are written.
        """
        given, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        begun, first = time.monotonic(), self.state.global_step * self.each
        batches = [self._written(first + place) or batch for place, batch in enumerate(given)]
        for place, batch in enumerate(batches, first):
            for piece in batch["pieces"]:
                piece["number"] = torch.tensor(self.numbers[place] or 0)
        counted = [piece for batch in batches for piece in batch["pieces"] if "idle" not in piece]
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

    def _written(self, place: int) -> Pieces | None:
        """The batch at `place` of this process's with answers of the student's own; None where it keeps the given."""
        number = self.numbers[place]
        if self.writer is None or number is None or number not in self.writer.batches:
            return None
        examples = [self.examples[i] for i in self.plan[place]]
        written = in_pieces(self.writer.write(self.model, examples, number), self.pieces)
        return {"pieces": [{**collate(piece, pad=0), "own": torch.tensor(True)} for piece in written]}

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward for each piece of a batch; their gradients add up to the batch's."""
        losses = [super(Loop, self).training_step(model, piece, num_items_in_batch) for piece in inputs["pieces"]]
        return torch.stack(losses).sum()

    def floating_point_ops(self, _inputs: Any) -> int:
        return 0  # transformers would look for the tokens of a batch, and nobody reads the sum

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
        # What is left out by chance depends on the batch alone, and not on who takes it or what was drawn before.
        torch.manual_seed(self.seed + int(inputs.pop("number")))
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
            norm = torch.nn.utils.clip_grad_norm_(self.trainable, self.args.max_grad_norm)
        else:
            norm = whole(super()._clip_grad_norm(model))
        self.watcher.saw_gradient(float(norm))
        return norm

    def _defer_fsdp_gradient_reduction(self) -> AbstractContextManager[None]:
        # Each batch's gradients are summed up at once: until then a process holds those of the whole model.
        return nullcontext()

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean cross-entropy in nats of the validation answers' tokens, whatever the objective of training is."""
        self.model.eval()
        nats, tokens = 0.0, 0
        for number in self.processes.part(len(self.validation), self.processes.count):
            # One that has no rows left runs along: the others may need its part of the weights.
            rows = [] if number is None else self.validation[number]
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

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        # Of a model that is shared out, and of an adapter, the masters in the optimiser's state are the weights.
        if not self.masters_are_all:
            super().save_model(output_dir, _internal_call)
        elif output_dir and self.processes.first:
            Path(output_dir).mkdir(parents=True, exist_ok=True)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *arguments: Any, **named: Any) -> None:
        # What processes left that shared the model out has no weights but the masters.
        if not self.masters_are_all and Path(resume_from_checkpoint, SAFE_WEIGHTS_NAME).exists():
            super()._load_from_checkpoint(resume_from_checkpoint, *arguments, **named)

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
