"""Weights set to zero without training: Wanda (Sun et al. 2023, equation 1).

A weight counts |W_ij| · ‖x_j‖₂, what it does to the output on the user's texts; of each row the least go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from slmops.compress.gptq import relative_error
from slmops.compress.layerwise import Walk
from slmops.progress import Progress
from slmops.recipe.compress import Sparsity

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FOUR = 4


@torch.no_grad()
def prune(
    model: PreTrainedModel, texts: Sequence[Sequence[int]], settings: Sparsity, progress: Progress
) -> dict[str, float]:
    """Set weights of all layers to zero, in place, layer after layer from the lowest; embeddings and head are whole.

    Args:
        model: float32, in evaluation mode.
        texts: token ids that the model is to be measured on.

    Returns:
        `pruned_share`, of the layers' weights, and `pruning_error`: the mean of ‖x(W - P)ᵀ‖² / ‖xWᵀ‖².
    """
    zeros = weights = 0
    errors: list[float] = []
    walk = Walk(model, texts)
    with progress.task("prune layers", model.config.num_hidden_layers, "layers") as task:
        for _ in walk:
            for group in walk.groups():
                weight = group.weight
                pruned = weight * kept(weight.abs() * group.curvature.diagonal().sqrt(), settings)
                errors.append(relative_error(weight, pruned, group.curvature))
                group.assign(pruned)
                zeros, weights = zeros + int((pruned == 0).sum()), weights + pruned.numel()
            task.advance()
    return {"pruned_share": zeros / weights, "pruning_error": sum(errors) / len(errors)}


def kept(scores: torch.Tensor, settings: Sparsity) -> torch.Tensor:
    """Which weights stay, bool [out, in], by their scores; with 2:4 the last of a row that make no four stay too."""
    stays = torch.ones_like(scores, dtype=torch.bool)
    if settings.pattern == "2:4":
        whole = scores.shape[1] // _FOUR * _FOUR
        fours = scores[:, :whole].reshape(len(scores), -1, _FOUR)
        least = fours.argsort(-1)[..., : _FOUR // 2]
        stays[:, :whole] = torch.ones_like(fours, dtype=torch.bool).scatter_(-1, least, False).reshape(len(scores), -1)
        return stays
    count = int(settings.share * scores.shape[1])
    return stays.scatter_(1, scores.argsort(1)[:, :count], False)
