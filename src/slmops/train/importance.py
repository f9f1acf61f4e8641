"""How much each attention head and each feed-forward channel does on the task's rows, by forward passes alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from slmops.models.layers import layers_of
from slmops.models.width import Width, width_of
from slmops.progress import Progress, Silent
from slmops.train.collate import collate
from slmops.train.examples import Example

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BATCH_ROWS = 8


@dataclass(frozen=True)
class Importance:
    """What one layer's parts do, averaged over tokens.

    Attributes:
        groups: float32 [key-value heads]; the norm of what a group of heads adds to the stream, ‖W_o,g a_g‖, where
            a_g is the output of its query heads and W_o,g the columns of the output matrix that read it.
        channels: float32 [channels]; the magnitude of what a channel adds, mean |a_c| · ‖W_down,c‖, where a_c is the
            product of gate and up.

    Both are the activation-based importance of Minitron (Muralidharan et al. 2024, section 2.2), which needs no
    gradients, taken behind the matrix that follows, so that an activation counts by what is made of it (as Wanda
    weighs it by the weight's magnitude, Sun et al. 2023).
    """

    groups: torch.Tensor
    channels: torch.Tensor


def measure_importance(
    model: PreTrainedModel, examples: Sequence[Example], progress: Progress | None = None
) -> list[Importance]:
    """The importance of the parts of each layer, over all tokens of `examples`, prompts included.

    Raises:
        BadInput: the model's layers are not built so that they can be cut in width.
    """
    width = width_of(model)
    found = [
        Importance(torch.zeros(width.groups), torch.zeros(width.channels))
        for _ in range(model.config.num_hidden_layers)
    ]
    with torch.inference_mode(), (progress or Silent()).task("weigh heads and channels", len(examples), "rows") as task:
        for start in range(0, len(examples), _BATCH_ROWS):
            batch = collate(examples[start : start + _BATCH_ROWS], pad=0)
            with _listening(model, width, found, batch["attention_mask"].bool()):
                model.base_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
            task.advance(len(batch["input_ids"]))
        tokens = sum(map(len, examples))
        for layer, importance in zip(layers_of(model), found, strict=True):
            importance.groups.div_(tokens)
            importance.channels.mul_(layer.module.mlp.down_proj.weight.float().norm(dim=0)).div_(tokens)
    return found


def most_important(scores: torch.Tensor, keep: int) -> list[int]:
    """The places of the `keep` highest of `scores`, ascending; of equal ones the first."""
    return sorted(torch.argsort(scores, descending=True, stable=True)[:keep].tolist())


@contextmanager
def _listening(model: PreTrainedModel, width: Width, found: Sequence[Importance], read: torch.Tensor) -> Iterator[None]:
    """Inside, a forward pass adds to `found` what it sees at the positions `read`, bool [rows, length]."""
    handles = []
    for layer, importance in zip(layers_of(model), found, strict=True):
        output, down = layer.module.self_attn.o_proj, layer.module.mlp.down_proj
        handles += [
            output.register_forward_pre_hook(partial(_add_groups, width, importance.groups, read)),
            down.register_forward_pre_hook(partial(_add_channels, importance.channels, read)),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _add_groups(width: Width, sums: torch.Tensor, read: torch.Tensor, output: Any, arguments: tuple[Any, ...]) -> None:
    heads = arguments[0][read]  # [tokens, query heads * head size]
    for group in range(width.groups):
        columns = width.query_rows([group])
        added = torch.nn.functional.linear(heads[:, columns], output.weight[:, columns])
        sums[group] += added.float().norm(dim=-1).sum()


def _add_channels(sums: torch.Tensor, read: torch.Tensor, _down: Any, arguments: tuple[Any, ...]) -> None:
    sums.add_(arguments[0][read].float().abs().sum(dim=0))
