"""What a training will need of memory, added up before it starts instead of found out when it is killed."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import psutil
import torch

from slmops.console import size
from slmops.errors import BadInput
from slmops.recipe.training import Optimisation
from slmops.train.examples import Example
from slmops.train.on_policy import Writer
from slmops.train.trunk import states_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FLOAT32 = 4


@dataclass(frozen=True)
class Memory:
    """Bytes that a training needs at its peak.

    Attributes:
        weights: of the model, in the type it computes in.
        gradients: in that type, and once more in float32 while a step is taken where that is another.
        optimiser: two moments of each moving weight, and a float32 master where the model computes with another value.
        activations: what the backward pass of the largest batch reads, and the logits of its answers.
        states: what the still layers put out, where it is kept for every example.
        teacher: weights of the teacher that runs beside the student.
    """

    weights: int
    gradients: int
    optimiser: int
    activations: int
    states: int = 0
    teacher: int = 0

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


def available_bytes() -> int:
    """Memory this process can take without swapping; on the GPU where there is one.

    Processes that train together share their machine's memory evenly.
    """
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def needed(
    model: PreTrainedModel,
    batches: Sequence[Sequence[int]],
    examples: Sequence[Example],
    settings: Optimisation,
    *,
    on_grid: Collection[torch.Tensor] = (),
    parts: int = 1,
    writer: Writer | None = None,
    whole: bool = False,
    teacher_bytes: int = 0,
) -> Memory:
    """What training `model` on `batches` of `examples` needs; still weights have no gradient and no master.

    Args:
        on_grid: weights that are rounded, whatever their type.
        parts: processes that weights, gradients and the optimiser's state are shared out over.
        writer: the answers of its batches count as the longest that it may write. The cache that they are written with
            is gone before the backward pass, which keeps several times as much of every token.
        whole: still layers are run again in every pass, and nothing of them is kept.
    """
    itemsize = model.dtype.itemsize
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    moving = sum(weight.numel() for weight in weights)
    masters = sum(weight.numel() for weight in weights if itemsize != _FLOAT32 or weight in on_grid)
    in_step = 0 if itemsize == _FLOAT32 else _FLOAT32 * moving
    activations = []
    for number, batch in enumerate(batches):
        longest = writer.how.max_tokens if writer and number in writer.batches else None
        answers = [longest or len(examples[i].answer) for i in batch]
        length = max(len(examples[i].prompt) + answer for i, answer in zip(batch, answers, strict=True))
        activations.append(
            activation_bytes(model, rows=len(batch), length=length, answer_tokens=sum(answers), settings=settings)
        )
    return Memory(
        weights=sum(weight.numel() for weight in model.parameters()) * itemsize // parts,
        gradients=(moving * itemsize + in_step) // parts,
        optimiser=_FLOAT32 * (2 * moving + masters) // parts,
        activations=max(activations),
        states=0 if whole else states_bytes(model, settings.freeze_layers, examples),
        teacher=teacher_bytes,
    )


def activation_bytes(
    model: PreTrainedModel, *, rows: int, length: int, answer_tokens: int, settings: Optimisation
) -> int:
    """What autograd keeps of one batch for its backward pass, counted over the operations of a Llama-like layer.

    Of each layer that moves and each token: both norms' input in float32 and two values behind it; queries, keys and
    values of every head, what attention puts out, and that once more for the projection; and gate, activation, upward
    projection and their product. Recomputed layers keep their input alone, and one of them all the rest at a time.
    Of each answer token: logits and their logarithms in float32 and both gradients.
    """
    config = model.config.get_text_config()
    itemsize, tokens = model.dtype.itemsize, rows * length
    hidden, heads = config.hidden_size, config.num_attention_heads
    queries = heads * (getattr(config, "head_dim", None) or hidden // heads)
    inner = getattr(config, "intermediate_size", None)
    inner = inner if isinstance(inner, int) else 4 * hidden
    layer = tokens * (2 * _FLOAT32 * hidden + itemsize * (4 * hidden + 5 * queries + 4 * inner))
    if getattr(config, "_attn_implementation", None) == "eager":
        layer += rows * heads * length**2 * (_FLOAT32 + itemsize)
    layers = config.num_hidden_layers - settings.freeze_layers
    kept = layers * tokens * itemsize * hidden + layer if settings.checkpoint_activations else layers * layer
    logits = answer_tokens * config.vocab_size * (4 * _FLOAT32 + 2 * itemsize)
    return int(kept + logits)


def check_memory(memory: Memory, available: int, model: PreTrainedModel, settings: Optimisation) -> None:
    """Refuse a training that would not fit.

    Args:
        available: bytes, before the model was loaded.

    Raises:
        BadInput: says what needs how much, and which settings to lower.
    """
    if memory.total <= available:
        return
    parts = ", ".join(f"{name} {size(count)}" for name, count in asdict(memory).items())
    raise BadInput(
        f"training needs about {size(memory.total)} of memory ({parts}) and {size(available)} are available",
        hint=_advice(memory, available, model, settings),
    )


def _advice(memory: Memory, available: int, model: PreTrainedModel, settings: Optimisation) -> str:
    """What to lower: the batch where the rest would fit, else what every weight costs."""
    fixed = memory.total - memory.activations
    advice = []
    if fixed < available:
        advice.append(f"lower batch_tokens (now {settings.batch_tokens}) and raise accumulate as much")
        if not settings.checkpoint_activations:
            advice.append("set checkpoint_activations: true")
    else:
        advice.append("train a smaller model (student.carve.layers)")
        advice.append(f"raise freeze_layers (now {settings.freeze_layers})")
    if model.dtype == torch.float32 and fixed >= available:
        advice.append("close what else runs on this machine")
    return ", or ".join(advice)
