"""Cutting a model narrower: attention heads and channels of the feed-forward layers taken out of its matrices.

What is taken out stops contributing, and nothing else changes: the narrower model computes what the whole one would
with those heads and channels set to zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slmops.errors import BadInput
from slmops.models.layers import layers_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_ATTENTION = ({"q_proj", "k_proj", "v_proj", "o_proj"}, {"qkv_proj", "o_proj"})
_FEED_FORWARD = ({"gate_proj", "up_proj", "down_proj"}, {"gate_up_proj", "down_proj"})
"""The matrices of a layer, apart as in Llama, Qwen and Gemma or fused as in Phi-3."""

_HEAD_NORMS = {"q_norm", "k_norm"}
"""Norms within a head, as in Qwen 3 and Gemma 3; the same weights serve every head."""


@dataclass(frozen=True)
class Width:
    """How wide each layer of a model is.

    Attributes:
        groups: key-value heads. Each serves the `queries` query heads that share it (grouped-query attention, Ainslie
            et al. 2023), so a group stays or goes as a whole: their ratio must remain an integer.
        queries: query heads of a group.
        head_size: features of one head.
        channels: features between the two matrices of the feed-forward part.
    """

    groups: int
    queries: int
    head_size: int
    channels: int

    def key_rows(self, groups: Sequence[int]) -> list[int]:
        """Rows of the key (and value) matrix that make these groups."""
        return _spans(groups, self.head_size)

    def query_rows(self, groups: Sequence[int]) -> list[int]:
        """Rows of the query matrix that make these groups: the columns of the output matrix that read them."""
        return _spans(groups, self.head_size * self.queries)


def width_of(model: PreTrainedModel) -> Width:
    """How wide the model's layers are.

    Raises:
        BadInput: the layers are not built of the matrices that can be cut, such as those of a mixture of experts.
    """
    config, layers = model.config, layers_of(model)
    groups = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(getattr(layers[0].module, "self_attn", None), "head_dim", 0)
    width = Width(groups, config.num_attention_heads // groups, size, config.intermediate_size)
    for layer in layers:
        if not _plain(layer.module, width):
            raise BadInput(
                f"{type(model).__name__} cannot be cut in width: its layers are not built as Llama's or Phi-3's are",
                hint="leave student.carve.heads and student.carve.channels out",
            )
    return width


def _plain(layer: Any, width: Width) -> bool:
    """Whether a layer holds the matrices that can be cut, in the sizes that `width` says, and nothing else."""
    attention, feed_forward = _weights(layer, "self_attn"), _weights(layer, "mlp")
    norms = _HEAD_NORMS & attention.keys()
    if attention.keys() - norms not in _ATTENTION or set(feed_forward) not in _FEED_FORWARD:
        return False
    reading = width.groups * (width.queries + 2) * width.head_size
    return (
        all(attention[name].weight.numel() == width.head_size for name in norms)
        and sum(attention[name].out_features for name in attention.keys() - norms - {"o_proj"}) == reading
        and sum(feed_forward[name].out_features for name in feed_forward.keys() - {"down_proj"}) == 2 * width.channels
    )


def _weights(layer: Any, part: str) -> Mapping[str, Any]:
    """The modules of one part of a layer that hold weights, and weights that stand alone, by name."""
    inner = getattr(layer, part, None)
    if inner is None:
        return {}
    modules = {name: module for name, module in inner.named_children() if any(True for _ in module.parameters())}
    return modules | dict(inner.named_parameters(recurse=False))


def check_width(model: PreTrainedModel, *, heads: int | None, channels: int | None) -> None:
    """Refuse a number of key-value heads or channels that the model cannot be cut down to; None keeps all.

    Raises:
        BadInput: names what would fit.
    """
    if heads is None and channels is None:
        return
    width = width_of(model)
    if channels is not None and not 1 <= channels <= width.channels:
        raise BadInput(
            f"{channels} channels do not fit: a layer of the model has {width.channels}",
            hint=f"set student.carve.channels to 1 to {width.channels}",
        )
    if heads is None:
        return
    fitting = {count: _refusal(model, width, count) for count in range(1, width.groups + 1)}
    if fitting.get(heads, "too many") is not None:
        fit = [str(count) for count, refusal in fitting.items() if refusal is None]
        why = fitting.get(heads) or f"a layer of the model has {width.groups}, each with {width.queries} query heads"
        raise BadInput(
            f"{heads} key-value heads do not fit: {why}",
            hint=f"student.carve.heads can be {', '.join(fit)}, or null to keep all",
        )


def _refusal(model: PreTrainedModel, width: Width, groups: int) -> str | None:
    """Why a configuration with so many groups could not be read back, or None.

    Some families check that heads divide the hidden size, or that rotary factors are as many as a head of that size
    would have, although a head's size is given apart.
    """
    from huggingface_hub.errors import StrictDataclassError

    config = model.config
    try:
        type(config).from_dict(config.to_dict() | _head_entries(width, groups))
    except (StrictDataclassError, ValueError) as error:
        return f"the configuration of {type(model).__name__} refuses them: {error.__cause__ or error}"
    return None


def _head_entries(width: Width, groups: int) -> dict[str, int]:
    """What a configuration says of heads. Their size is named: fewer of them no longer divide the hidden size by it."""
    return {
        "head_dim": width.head_size,
        "num_attention_heads": groups * width.queries,
        "num_key_value_heads": groups,
    }


def keep_heads(model: PreTrainedModel, kept_groups: Sequence[Sequence[int]]) -> None:
    """Keep the key-value heads `kept_groups[layer]` of each layer and the query heads that share them, in place.

    Args:
        kept_groups: for each layer its key-value heads, ascending, and as many in every layer.

    Raises:
        BadInput: the model cannot be cut so.
    """
    width = width_of(model)
    count = _checked(kept_groups, layers=len(layers_of(model)), of=width.groups)
    check_width(model, heads=count, channels=None)
    for layer, groups in zip(layers_of(model), kept_groups, strict=True):
        attention = layer.module.self_attn
        queries, keys = width.query_rows(groups), width.key_rows(groups)
        if hasattr(attention, "qkv_proj"):
            before_keys = width.groups * width.queries * width.head_size
            before_values = before_keys + width.groups * width.head_size
            fused = [*queries, *(before_keys + i for i in keys), *(before_values + i for i in keys)]
            _keep_rows(attention.qkv_proj, fused)
        else:
            _keep_rows(attention.q_proj, queries)
            _keep_rows(attention.k_proj, keys)
            _keep_rows(attention.v_proj, keys)
        _keep_columns(attention.o_proj, queries)
        _tell(attention, num_heads=count * width.queries, num_key_value_heads=count)
    for name, value in _head_entries(width, count).items():
        setattr(model.config, name, value)


def keep_channels(model: PreTrainedModel, kept_per_layer: Sequence[Sequence[int]]) -> None:
    """Keep the channels `kept_per_layer[layer]` of each feed-forward part, in place.

    Args:
        kept_per_layer: for each layer its channels, ascending, and as many in every layer.

    Raises:
        BadInput: the model cannot be cut so.
    """
    width = width_of(model)
    count = _checked(kept_per_layer, layers=len(layers_of(model)), of=width.channels)
    for layer, channels in zip(layers_of(model), kept_per_layer, strict=True):
        feed_forward = layer.module.mlp
        if hasattr(feed_forward, "gate_up_proj"):
            _keep_rows(feed_forward.gate_up_proj, [*channels, *(width.channels + i for i in channels)])
        else:
            _keep_rows(feed_forward.gate_proj, channels)
            _keep_rows(feed_forward.up_proj, channels)
        _keep_columns(feed_forward.down_proj, channels)
        _tell(feed_forward, intermediate_size=count)
    model.config.intermediate_size = count


def _checked(kept: Sequence[Sequence[int]], *, layers: int, of: int) -> int:
    """How many are kept in every layer."""
    counts = {len(one) for one in kept}
    if len(kept) != layers or len(counts) != 1 or not min(counts):
        raise BadInput(f"as many must be kept in each of the {layers} layers, and at least one; got {sorted(counts)}")
    for one in kept:
        if list(one) != sorted(set(one)) or not 0 <= one[0] <= one[-1] < of:
            raise BadInput(f"what is kept of a layer must be ascending numbers from 0 to {of - 1}; got {list(one)}")
    return counts.pop()


def _spans(numbers: Sequence[int], size: int) -> list[int]:
    return [i for number in numbers for i in range(number * size, (number + 1) * size)]


def _keep_rows(linear: Any, rows: Sequence[int]) -> None:
    """Outputs of a linear layer."""
    linear.weight = _parameter(linear.weight.detach()[list(rows)])
    if linear.bias is not None:
        linear.bias = _parameter(linear.bias.detach()[list(rows)])
    linear.out_features = len(rows)


def _keep_columns(linear: Any, columns: Sequence[int]) -> None:
    """Inputs of a linear layer."""
    linear.weight = _parameter(linear.weight.detach()[:, list(columns)])
    linear.in_features = len(columns)


def _parameter(values: torch.Tensor) -> torch.nn.Parameter:
    import torch

    return torch.nn.Parameter(values.clone())


def _tell(module: Any, **numbers: int) -> None:
    """Some modules hold numbers of the configuration as attributes and compute with them."""
    for name, number in numbers.items():
        if hasattr(module, name):
            setattr(module, name, number)
