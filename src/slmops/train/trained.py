"""What comes out of a training: the model in float32, and how it got there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers

from slmops.models.adapters.attach import attach as put_adapter
from slmops.models.adapters.files import AdapterWeights
from slmops.models.device import fastest_device
from slmops.models.source import load_model
from slmops.recipe.tuning import Adapter
from slmops.train.adapted import load_base, merged, put_in, taken_out
from slmops.train.examples import Example
from slmops.train.loop import Loop


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


def finished(
    trainer: Loop, model: transformers.PreTrainedModel, folder: Path, figures: dict[str, float | str]
) -> Trained:
    """The model with the weights that come out, in float32 and without what only its training needed."""
    watcher = trainer.watcher
    weights = watcher.result()
    made = load_model(folder, dtype=torch.float32) if trainer.sharded else model.float()
    put_in(made, weights)
    trainer.imitation.detach(model)
    return _told(trainer, made, figures)


def finished_adapter(
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
