"""Scaling up what matters before weights are rounded: AWQ (Lin et al. 2023, section 3.2).

A channel that is large in what a layer reads matters more, and an error in its weights costs more. Its weights are
multiplied by s and what comes before is divided by s: the model computes the same, and after rounding such weights err
by less. s is the channel's mean magnitude to the power α, and α is chosen on the user's texts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from slmops.compress.gptq import relative_error
from slmops.compress.layerwise import Group, Walk
from slmops.errors import BadInput
from slmops.models.rounding import Grid
from slmops.models.width import Width, width_of
from slmops.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ALPHAS = tuple(i / 20 for i in range(20))
"""As in the paper's own code; 0 leaves the weights as they are."""


class Scalable(NamedTuple):
    """Maps that read the same, and how what they read is made smaller.

    Attributes:
        divide: takes s, float32 [in], and divides what comes before by it.
        shared: [in], which channels must have one s: those that one channel before feeds.
    """

    maps: Sequence[torch.nn.Linear]
    divide: Callable[[torch.Tensor], None]
    shared: torch.Tensor | None = None


@torch.no_grad()
def scale(
    model: PreTrainedModel,
    texts: Sequence[Sequence[int]],
    grid: Grid,
    progress: Progress,
    *,
    int8_layers: Collection[int] = (),
) -> dict[str, float]:
    """Scale the channels of all layers, in place; the model computes what it did.

    Args:
        model: float32, in evaluation mode.
        texts: token ids that the model is to be measured on.
        grid: what the weights will be rounded to.
        int8_layers: numbers of layers that are left alone.

    Returns:
        `awq_error` and `awq_error_unscaled`: the mean of ‖x(W - Q)ᵀ‖² / ‖xWᵀ‖² with and without.

    Raises:
        BadInput: the layers are not built of maps that are known.
    """
    try:
        width = width_of(model)
    except BadInput as error:
        raise BadInput(
            f"the channels of {type(model).__name__} cannot be scaled: its layers are not built as Llama's or Phi-3's",
            hint="set compress.algorithm: gptq",
        ) from error
    walk = Walk(model, texts)
    found: list[tuple[float, float]] = []
    with progress.task("scale channels", model.config.num_hidden_layers, "layers") as task:
        for layer in walk:
            if walk.number not in int8_layers:
                groups = {frozenset(group.maps): group for group in walk.groups()}
                for scalable in scalables(layer, width):
                    found.append(_scaled(groups[frozenset(scalable.maps)], scalable, grid))
            task.advance()
    errors, unscaled = (sum(each) / len(found) for each in zip(*found, strict=True))
    return {"awq_error": errors, "awq_error_unscaled": unscaled}


def _scaled(group: Group, scalable: Scalable, grid: Grid) -> tuple[float, float]:
    """Scale one group by the best of `ALPHAS`; the error of rounding it after that, and without."""
    weight = group.weight
    tried = []
    for alpha in ALPHAS:
        s = _scales(group.magnitude, alpha, scalable.shared)
        tried.append((relative_error(weight, grid(weight * s) / s, group.curvature), s))
    error, s = min(tried, key=lambda each: each[0])
    group.assign(weight * s)
    scalable.divide(s)
    return error, tried[0][0]


def _scales(magnitude: torch.Tensor, alpha: float, shared: torch.Tensor | None) -> torch.Tensor:
    """s = magnitude^α, around 1, so that no weights as a whole grow or shrink."""
    if shared is not None:
        sums = magnitude.new_zeros(int(shared.max()) + 1).index_add_(0, shared, magnitude)
        magnitude = (sums / torch.bincount(shared))[shared]
    s = magnitude.clamp(min=1e-4) ** alpha
    return s / (s.max() * s.min()).sqrt()


def scalables(layer: Any, width: Width) -> Iterator[Scalable]:
    """The maps of a layer that something can be divided before, as Llama's, Gemma's and Phi-3's layers are built."""
    attention, mlp = layer.self_attn, layer.mlp
    values, features = _values(attention, width)
    yield Scalable(_present(attention, "q_proj", "k_proj", "v_proj", "qkv_proj"), _norm(layer.input_layernorm))
    fed_by = _fed_by(width).to(values.weight.device)
    yield Scalable([attention.o_proj], _rows(values, features, fed_by), fed_by)
    before = getattr(layer, "pre_feedforward_layernorm", layer.post_attention_layernorm)
    yield Scalable(_present(mlp, "gate_proj", "up_proj", "gate_up_proj"), _norm(before))
    if hasattr(mlp, "gate_up_proj"):
        yield Scalable([mlp.down_proj], _rows(mlp.gate_up_proj, slice(width.channels, None)))
    else:
        yield Scalable([mlp.down_proj], _rows(mlp.up_proj, slice(None)))


def _present(module: Any, *names: str) -> list[torch.nn.Linear]:
    return [getattr(module, name) for name in names if hasattr(module, name)]


def _values(attention: Any, width: Width) -> tuple[torch.nn.Linear, slice]:
    """The map that makes the values, and which of its rows do."""
    if hasattr(attention, "v_proj"):
        return attention.v_proj, slice(None)
    return attention.qkv_proj, slice((width.queries + 1) * width.groups * width.head_size, None)


def _fed_by(width: Width) -> torch.Tensor:
    """The feature of the values that each column of the output map reads: one value head serves several query heads."""
    features = torch.arange(width.groups * width.head_size).view(width.groups, 1, width.head_size)
    return features.expand(-1, width.queries, -1).reshape(-1)


def _norm(norm: Any) -> Callable[[torch.Tensor], None]:
    """Divides what a norm puts out. Gemma's norms multiply by one more than their weight."""
    with torch.no_grad():
        offset = (norm(torch.ones_like(norm.weight)) - norm.weight).mean().round()

    def divide(s: torch.Tensor) -> None:
        norm.weight.copy_((norm.weight + offset) / s - offset)

    return divide


def _rows(linear: torch.nn.Linear, rows: slice, fed_by: torch.Tensor | None = None) -> Callable[[torch.Tensor], None]:
    """Divides some of what a map puts out.

    Args:
        fed_by: for each entry of s the row that it belongs to, which may be another's too; None where there is one s
            for each row.
    """

    def divide(s: torch.Tensor) -> None:
        part = linear.weight[rows]
        own = s if fed_by is None else s.new_empty(len(part)).scatter_(0, fed_by, s)
        part.div_(own[:, None])
        if linear.bias is not None:
            linear.bias[rows].div_(own)

    return divide
