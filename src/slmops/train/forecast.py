"""What a training will move, hold and take, told before it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from slmops.models.adapters.attach import attach
from slmops.recipe.training import Optimisation, Tuning
from slmops.recipe.tuning import Adapter
from slmops.train.examples import Example, in_steps, schedule
from slmops.train.memory import Memory, available_bytes, needed, parameters_of
from slmops.train.precision import measured_rates, precisions
from slmops.train.remedy import remedy
from slmops.train.settle import Need, Settled, settled
from slmops.train.shared import shared_tokens, shares
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
        available: bytes that are free now.
        choices: what of activations, pieces of a batch and precision was decided, and why.
        refused: what to change, where the training does not fit and would be refused.
    """

    parameters: int
    trainable: int
    memory: Memory
    steps: int
    tokens: int
    seconds: float
    precision: str
    available: int
    choices: str
    refused: str | None = None
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
    plan = schedule([len(e) for e in examples], epochs=settings.epochs, batch_tokens=settings.batch_tokens, seed=seed)
    available, rows = available_bytes(processes), max(map(len, plan))
    parts = processes if shared_out else 1

    def made(dtype: torch.dtype) -> tuple[PreTrainedModel, Need, Settled]:
        model = bare(config, settings, adapter, dtype)
        need = need_of(model, plan, examples, adapter, parts=parts)
        can = bool(model.supports_gradient_checkpointing)
        return model, need, settled(settings, need, available, can=can, rows=rows)

    first, *others = precisions(settings.precision, config)
    precision, (model, need, found) = first, made(first.dtype)
    for other in others:
        if not found.fits and (instead := made(other.dtype))[2].fits:
            precision, (model, need, found) = other, instead
    refused = None
    if not found.fits:
        methods = lighter(config, settings, adapter, precision.dtype, plan, examples)
        can = bool(model.supports_gradient_checkpointing)
        refused = remedy(settings, found, need, methods, examples, can=can, rows=rows)
    # Without a GPU they share the cores that the rate was measured on.
    at_once = processes if torch.cuda.is_available() else 1
    return Forecast(
        parameters=parameters_of(model),
        trainable=sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        memory=found.memory,
        steps=len(in_steps(plan, settings.batches_per_step)),
        tokens=sum(len(examples[i]) for batch in plan for i in batch),
        seconds=seconds_of(model, plan, examples, found.settings, precision.name) / at_once,
        precision=precision.name,
        processes=processes,
        available=available,
        choices=found.said() + ("" if precision is first else f"; {first.name} would not fit"),
        refused=refused,
    )


def bare(
    config: PretrainedConfig, settings: Optimisation, adapter: Adapter | None, dtype: torch.dtype
) -> PreTrainedModel:
    """A model of `config` as it is trained, without any weight."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
        model.tie_weights()
        freeze(model, settings.freeze_layers)
        if adapter:
            attach(model, adapter, first=settings.freeze_layers)
    return model


def need_of(
    model: PreTrainedModel,
    plan: Sequence[Sequence[int]],
    examples: Sequence[Example],
    adapter: Adapter | None,
    *,
    parts: int = 1,
) -> Need:
    """What training `model` on the words alone needs, of each of `parts` processes that it is shared out over."""

    def need(settings: Optimisation, pieces: int) -> Memory:
        return needed(model, plan, examples, settings, pieces=pieces, parts=parts, alone=parts > 1, adapter=adapter)

    return need


def lighter(
    config: PretrainedConfig,
    settings: Optimisation,
    adapter: Adapter | None,
    dtype: torch.dtype,
    plan: Sequence[Sequence[int]],
    examples: Sequence[Example],
) -> Mapping[str, Need]:
    """What the methods need that could take the place of the one that is asked for, the largest first."""
    instead = [] if adapter and adapter.method == "qlora" else ["qlora"] if adapter else ["lora", "qlora"]
    needs = {}
    for method in instead:
        one = Tuning.model_validate({"method": method}).to_make
        needs[method] = need_of(bare(config, settings, one, dtype), plan, examples, one)
    return needs


def seconds_of(
    model: PreTrainedModel,
    plan: Sequence[Sequence[int]],
    examples: Sequence[Example],
    settings: Optimisation,
    precision: str,
    *,
    whole: bool = False,
    alone: bool = False,
) -> float:
    """Seconds that the matrix products of a training take here, counted as 2 operations for a weight and a token.

    Forward, and backward towards the inputs, every weight above the still layers; backward towards a weight, those that
    move. Padding counts, attention between tokens does not, and the head is run at answers alone. What all rows of a
    batch begin with counts once where it is read once; for `whole` and `alone` see `shares`.
    """
    text = model.config.get_text_config()
    inner = getattr(text, "intermediate_size", None)
    rates = measured_rates(text.hidden_size, inner if isinstance(inner, int) else 4 * text.hidden_size)
    head = model.get_output_embeddings()
    layers = model.get_decoder().layers[settings.freeze_layers :]
    weights = sum(parameters_of(layer) for layer in layers)
    moving = sum(weight.numel() for layer in layers for weight in layer.parameters() if weight.requires_grad)
    head_moves = any(weight.requires_grad for weight in head.parameters())
    read_once = shares(model, settings, whole=whole, alone=alone)
    padded = sum(_padded([examples[i] for i in batch], read_once=read_once) for batch in plan)
    answers = sum(len(examples[i].answer) for batch in plan for i in batch)
    again = 2 * weights if settings.checkpoint_activations else 0
    operations = padded * (4 * weights + 2 * moving + again) + answers * parameters_of(head) * (6 if head_moves else 4)
    return float(operations / (rates[precision == "bf16"] * 1e9))


def _padded(batch: Sequence[Example], *, read_once: bool) -> int:
    """Tokens that go through the layers, padding included."""
    common = shared_tokens(batch) if read_once else 0
    return common + len(batch) * (max(map(len, batch)) - common)
