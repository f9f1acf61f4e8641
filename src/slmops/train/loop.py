"""Moving weights, step by step: batches of a token budget, float32 masters, a loss over answer tokens alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn.utils.rnn import pad_sequence

from slmops.errors import BadInput
from slmops.models.device import fastest_device
from slmops.train.checkpoint import kept_tensors, step_of
from slmops.train.collate import collate
from slmops.train.examples import in_pieces
from slmops.train.made import Made, moving
from slmops.train.objectives.observe import answer_logits, label_weights
from slmops.train.objectives.text import cross_entropy
from slmops.train.optimiser import MasterAdamW
from slmops.train.peak import make_resident
from slmops.train.sharding import gathered, whole
from slmops.train.shared import shared_tokens, shares
from slmops.train.watcher import Watcher

Tensors = dict[str, torch.Tensor]

_MAX_GRADIENT_NORM = 1.0
_OBJECTIVE = "objective."
"""What the names of what the objective measures begin with, in a checkpoint."""


@dataclass(frozen=True)
class Piece:
    """A part of a batch that goes through the model at once. The batch's loss is the sum of its pieces', each scaled by
    its share of the step.

    Attributes:
        inputs: collated; `own` among them where the student wrote the answers, and `shared` as `answer_logits` has it.
        number: of the batch in the training.
        idle: it counts for nothing: other processes have a batch more, and this one keeps step with them.
    """

    inputs: Tensors
    number: int
    idle: bool = False

    @property
    def answer_tokens(self) -> int:
        return 0 if self.idle else len(self.inputs["target"])

    @property
    def tokens(self) -> int:
        return 0 if self.idle else int(self.inputs["attention_mask"].sum())

    @property
    def own_tokens(self) -> int:
        return self.answer_tokens if "own" in self.inputs else 0


class Loop:
    """The steps of one training, as far as this process takes them."""

    optimiser: MasterAdamW

    def __init__(
        self,
        made: Made,
        *,
        validation: list[list[int]],
        states: list[torch.Tensor] | None,
        watcher: Watcher,
    ) -> None:
        """The steps over this process's batches.

        Args:
            validation: batches of all processes together, as numbers of examples.
            states: what the still layers make of each example, where they need not run again.
        """
        model, batches, settings = made.model, made.reading.batches, made.found.settings
        self.model, self.examples, self.writer = model, made.reading.examples, made.reading.writer
        self.settings, self.imitation, self.pieces = settings, made.imitation, made.found.pieces
        self.validation, self.states, self.grids = validation, states, made.grids
        self.seed, self.processes, self.watcher = made.wanted.seed, watcher.processes, watcher
        self.numbers = self.processes.part(len(batches), settings.batches_per_step)
        self.plan = [[] if number is None else list(batches[number]) for number in self.numbers]
        self.each = self.processes.share(settings.batches_per_step)
        self.steps, self.sharded = len(watcher.tokens), made.wanted.fsdp is not None
        self.shares = shares(model, settings, whole=states is None, alone=made.alone)
        self.device = torch.device(fastest_device())
        if not self.sharded:
            _settle(model, self.device)
        self.trainable = moving(model)
        watcher.validate, watcher.weights = self.validation_loss, self.rounded_weights
        if settings.checkpoint_activations:
            _recompute_activations(model)

    def run(self, last: Path | None) -> None:
        """Take all steps, or those until it is enough, from the checkpoint `last` on."""
        done = step_of(last)
        if not self.sharded:
            make_resident([*self.model.parameters(), *self.imitation.teacher_weights])
        self.watcher.begin(last)
        self.optimiser = MasterAdamW(
            self.trainable,
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            rounding=self.grids,
        )
        if last:
            self._restore(kept_tensors(last))
        self.model.train()
        for step in range(done, self.steps):
            self._take(step)
            after = self.watcher.took(step + 1)
            if after.enough:
                break
            if after.keep:
                self.watcher.keep(step + 1, self._tensors())
        self.watcher.end()

    def _take(self, step: int) -> None:
        """One step of the optimiser."""
        # All batches before the first loss: a loss is scaled by its piece's share of the answer tokens of the step, in
        # all processes, and how many those are is known when the student has written its own.
        pieces, answers = self._collected(step)
        for piece in pieces:
            self._learn(piece, share=piece.answer_tokens / answers)
        self.watcher.saw_gradient(self._clip())
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.learning_rate * slope(step, self.steps, self.settings.warmup)
        self.optimiser.step()
        self.optimiser.zero_grad()

    def _collected(self, step: int) -> tuple[list[Piece], float]:
        """What this process learns from in a step, and the answer tokens of all processes.

        Some answers the student writes now, with the weights that it has now.
        """
        begun = time.monotonic()
        places = range(step * self.each, min((step + 1) * self.each, len(self.plan)))
        pieces = [piece for place in places for piece in self._written(place) or self._given(place)]
        counts = [(piece.answer_tokens, piece.tokens, piece.own_tokens) for piece in pieces]
        answers, tokens, own = self.processes.total([sum(each) for each in zip(*counts, strict=True)])
        self.watcher.collected(int(tokens), int(own), time.monotonic() - begun)
        return pieces, answers

    def _given(self, place: int) -> list[Piece]:
        """The batch at `place` of this process's as it is."""
        number = self.numbers[place]
        if number is None:
            # The other processes have a batch more: this one keeps step with a batch that counts for nothing.
            return [Piece(self._collate([0]), 0, idle=True)]
        return [Piece(self._collate(rows), number) for rows in in_pieces(self.plan[place], self.pieces)]

    def _written(self, place: int) -> list[Piece]:
        """The same with answers of the student's own; none where it keeps the given."""
        number = self.numbers[place]
        if self.writer is None or number is None or number not in self.writer.batches:
            return []
        examples = [self.examples[i] for i in self.plan[place]]
        written = in_pieces(self.writer.write(self.model, examples, number), self.pieces)
        return [Piece({**collate(rows, pad=0), "own": torch.tensor(True)}, number) for rows in written]

    def _collate(self, rows: Sequence[int]) -> Tensors:
        examples = [self.examples[i] for i in rows]
        batch = collate(examples, pad=0)
        if self.states is not None:
            batch["states"] = pad_sequence([self.states[i] for i in rows], batch_first=True)
        if self.shares and (shared := shared_tokens(examples)):
            batch["shared"] = torch.tensor(shared)
        return batch

    def _learn(self, piece: Piece, *, share: float) -> None:
        """Forward and backward; the gradients of a step's pieces add up.

        Args:
            share: of the answer tokens of the step: shares make a mean over pieces one over tokens.
        """
        # What is left out by chance depends on the batch alone, and not on who takes it or what was drawn before.
        torch.manual_seed(self.seed + piece.number)
        terms = self.imitation.terms(self.model, self._there(piece.inputs))
        loss: Any = sum(factor * value for factor, value in terms.values())
        figures = {name: float(value.detach()) for name, (_, value) in terms.items()}
        comparable = "own" not in piece.inputs or (self.writer is not None and self.writer.always)
        self.watcher.observe(figures, float(loss.detach()), share, comparable=comparable)
        (share * loss).backward()

    def _there(self, inputs: Tensors) -> Tensors:
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in inputs.items()}

    def _clip(self) -> float:
        """Add up what all processes found, and keep the gradient's norm, which is returned, below a bound."""
        if not self.sharded:
            # What a term learns has no gradient where this process's batches are without the term, and others' are not.
            moved = self.processes.total([weight.grad is not None for weight in self.trainable])
            for weight, somewhere in zip(self.trainable, moved, strict=True):
                if somewhere and weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
            self.processes.add_up([weight.grad for weight in self.trainable if weight.grad is not None])
        return float(whole(torch.nn.utils.clip_grad_norm_(self.trainable, _MAX_GRADIENT_NORM)))

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean cross-entropy in nats of the validation answers' tokens, whatever the objective of training is."""
        self.model.eval()
        nats, tokens = 0.0, 0
        for number in self.processes.part(len(self.validation), self.processes.count):
            # One that has no rows left runs along: the others may need its part of the weights.
            rows = [0] if number is None else self.validation[number]
            inputs = self._there(self._collate(rows))
            weights = label_weights(self.model, inputs)
            text = cross_entropy(answer_logits(self.model, inputs), inputs["target"], weights)
            count = 0 if number is None else len(inputs["target"])
            nats, tokens = nats + float(text) * count, tokens + count
        self.model.train()
        nats, every = self.processes.total([nats, tokens])
        return nats / every

    def rounded_weights(self) -> list[torch.Tensor]:
        """What the optimiser's masters are in the model's eyes, float32, in the order of `trainable`."""
        return [whole(weight) for weight in self.optimiser.rounded()]

    def _tensors(self) -> Tensors:
        """All that a training goes on from: weights that are still are those of the model that it began with."""
        measured = {f"{_OBJECTIVE}{name}": value for name, value in self.imitation.mixture.named_buffers()}
        found: Tensors = gathered({**self.optimiser.tensors(), **measured}, keep=self.processes.first)
        return found

    def _restore(self, tensors: Tensors) -> None:
        for name, value in self.imitation.mixture.named_buffers():
            value.copy_(tensors.pop(f"{_OBJECTIVE}{name}"))
        self.optimiser.restore(tensors)


def _settle(model: transformers.PreTrainedModel, device: torch.device) -> None:
    """Bring what is elsewhere to `device`, module by module: one in four bits cannot be moved as a whole."""
    for module in model.modules():
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if any(tensor.device.type != device.type for tensor in own):
            module._apply(lambda tensor: tensor.to(device), recurse=False)


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
