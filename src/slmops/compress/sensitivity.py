"""Which layers of a model suffer most when their weights are rounded, on the user's texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from slmops.compress.layerwise import Walk
from slmops.models.rounding import Grid
from slmops.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def layer_costs(model: PreTrainedModel, texts: Sequence[Sequence[int]], grid: Grid, progress: Progress) -> list[float]:
    """What the states above the last layer change when one layer alone is rounded to nearest: ‖Δh‖² / ‖h‖² of each.

    Goes by what comes out at the top and not by what the layer itself puts out: a small error below may grow.

    Args:
        model: float32, in evaluation mode; it is as before afterwards.
        texts: token ids that the model is to be measured on.
    """
    costs: list[float] = []
    walk = Walk(model, texts)
    with progress.task("weigh layers", model.config.num_hidden_layers, "layers") as task:
        for layer in walk:
            rest = slice(walk.number, None)
            whole = walk.tokens(walk.above(walk.states, rest))
            linear = [module for module in layer.modules() if isinstance(module, torch.nn.Linear)]
            kept = [module.weight.clone() for module in linear]
            for module in linear:
                module.weight.copy_(grid(module.weight))
            changed = walk.tokens(walk.above(walk.states, rest))
            for module, weight in zip(linear, kept, strict=True):
                module.weight.copy_(weight)
            costs.append(float((changed - whole).square().sum() / whole.square().sum()))
            task.advance(cost=costs[-1])
    return costs


def costliest(costs: Sequence[float], count: int) -> list[int]:
    """The `count` layer numbers of highest cost, ascending."""
    return sorted(sorted(range(len(costs)), key=costs.__getitem__, reverse=True)[:count])
