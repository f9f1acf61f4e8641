"""What a training will move, hold and take, told before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from slmops.models.adapters.attach import attach
from slmops.recipe.training import Optimisation
from slmops.recipe.tuning import Adapter
from slmops.train.examples import Example, in_steps, schedule
from slmops.train.memory import Memory, available_bytes, needed, parameters_of, settled
from slmops.train.precision import measured_rates, resolve_precision
from slmops.train.trunk import freeze

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Forecast:
    """A training as it is expected to be.

    Attributes:
        parameters: weights of the model, those of an adapter included.
        trainable: those that move.
        memory: bytes at its peak, of each process.
        tokens: of all steps.
        seconds: of training alone, at the speed that this machine multiplies matrices of the model's shape at.
    """

    parameters: int
    trainable: int
    memory: Memory
    steps: int
    tokens: int
    seconds: float
    precision: str
    processes: int = 1

    def describe(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**asdict(self), "memory": {**asdict(self.memory), "total": self.memory.total}}


def forecast(
    folder: Path,
    examples: Sequence[Example],
    settings: Optimisation,
    adapter: Adapter | None,
    *,
    seed: int,
    processes: int = 1,
    shared_out: bool = False,
) -> Forecast:
    """What training the model in `folder` on `examples` is expected to take; no weight of it is read.

    Only the words are learned: what a teacher needs that runs beside it is not in it.

    Args:
        processes: that train it together.
        shared_out: each of them holds a part of the model.

    Raises:
        BadInput: the layers or the adapter do not go with the model.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    precision = resolve_precision(settings.precision, config)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=precision.dtype)
        model.tie_weights()
        freeze(model, settings.freeze_layers)
        if adapter:
            attach(model, adapter, first=settings.freeze_layers)
    plan = schedule([len(e) for e in examples], epochs=settings.epochs, batch_tokens=settings.batch_tokens, seed=seed)
    tokens = sum(len(examples[i]) for batch in plan for i in batch)
    can = bool(model.supports_gradient_checkpointing)
    parts = processes if shared_out else 1
    settings, memory = settled(
        settings,
        lambda of: needed(model, plan, examples, of, parts=parts, adapter=adapter),
        available_bytes(processes),
        can=can,
    )
    # Without a GPU they share the cores that the rate was measured on.
    at_once = processes if torch.cuda.is_available() else 1
    return Forecast(
        parameters=parameters_of(model),
        trainable=sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        memory=memory,
        steps=len(in_steps(plan, settings.accumulate)),
        tokens=tokens,
        seconds=seconds_of(model, plan, examples, settings, precision.name) / at_once,
        precision=precision.name,
        processes=processes,
    )


def seconds_of(
    model: PreTrainedModel,
    plan: Sequence[Sequence[int]],
    examples: Sequence[Example],
    settings: Optimisation,
    precision: str,
) -> float:
    """Seconds that the matrix products of a training take here, counted as 2 operations for a weight and a token.

    Forward, and backward towards the inputs, every weight above the still layers; backward towards a weight, those that
    move. Padding counts, attention between tokens does not, and the head is run at answers alone.
    """
    text = model.config.get_text_config()
    inner = getattr(text, "intermediate_size", None)
    rates = measured_rates(text.hidden_size, inner if isinstance(inner, int) else 4 * text.hidden_size)
    head = model.get_output_embeddings()
    layers = model.get_decoder().layers[settings.freeze_layers :]
    weights = sum(parameters_of(layer) for layer in layers)
    moving = sum(weight.numel() for layer in layers for weight in layer.parameters() if weight.requires_grad)
    head_moves = any(weight.requires_grad for weight in head.parameters())
    padded = sum(len(batch) * max(len(examples[i]) for i in batch) for batch in plan)
    answers = sum(len(examples[i].answer) for batch in plan for i in batch)
    again = 2 * weights if settings.checkpoint_activations else 0
    operations = padded * (4 * weights + 2 * moving + again) + answers * parameters_of(head) * (6 if head_moves else 4)
    return float(operations / (rates[precision == "bf16"] * 1e9))
