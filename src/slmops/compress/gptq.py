"""Weights that make up for each other's rounding: GPTQ (Frantar et al. 2023, algorithm 1).

Rounding to nearest errs in each weight by itself. Here the weights of a row are rounded one after the other, and those
still to come move so that what the row puts out on real texts changes least. The result lies on the grid, so an
exporter that rounds to nearest ships exactly these weights.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from slmops.compress.layerwise import Walk
from slmops.models.rounding import Grid
from slmops.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_DAMPING = 0.01
"""Share of the mean curvature that is added to every direction (section 3.3 of the paper)."""

_CHUNK = 128
"""Columns after which what they owe is passed on to all later ones at once; a multiple of every block size."""


@torch.no_grad()
def quantise(
    model: PreTrainedModel,
    texts: Sequence[Sequence[int]],
    grid: Grid,
    progress: Progress,
    *,
    int8_layers: Collection[int] = (),
) -> dict[str, float]:
    """Put the linear weights of all layers on the grid, in place, layer after layer from the lowest.

    Each layer is measured on what the layers below it, rounded already, make of the texts. Embeddings, norms and head
    stay as they are.

    Args:
        model: float32, in evaluation mode.
        texts: token ids that the model is to be measured on.
        int8_layers: numbers of those that go on the same grid with eight bits.

    Returns:
        `rounding_error`: the mean of ‖x(W - Q)ᵀ‖² / ‖xWᵀ‖² over what layers read.
    """
    errors: list[float] = []
    walk = Walk(model, texts)
    with progress.task("round layers", model.config.num_hidden_layers, "layers") as task:
        for _ in walk:
            own = Grid(8, grid.block_size, grid.symmetric) if walk.number in int8_layers else grid
            for group in walk.groups():
                weight = group.weight
                with _one_thread():
                    rounded = round_to_grid(weight, group.curvature, own)
                errors.append(relative_error(weight, rounded, group.curvature))
                group.assign(rounded)
            task.advance()
    return {"rounding_error": sum(errors) / len(errors)}


@contextmanager
def _one_thread() -> Iterator[None]:
    """A column takes microseconds: threads would wait for each other longer, and ten times so on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def round_to_grid(weight: torch.Tensor, curvature: torch.Tensor, grid: Grid) -> torch.Tensor:
    """`weight` [out, in] on the grid, column after column, each error made up for by the columns to come.

    A block's steps are those of its weights when its first column is reached. The weights that set them stay on their
    levels whatever their neighbours owe, so that rounding the result to nearest changes nothing. A weight of zero
    stays zero: it may have been set so.

    Args:
        curvature: float32 [in, in], Σ xᵀx over what came in.
    """
    # Columns one by one are what this reads and writes, so they lie in one piece: [in, out].
    rest = weight.T.contiguous()
    result, pruned = torch.empty_like(rest), rest == 0
    passed_on, some_pruned = _passed_on(curvature), bool(pruned.any())
    size = grid.block_size
    for start in range(0, len(rest), _CHUNK):
        end = min(start + _CHUNK, len(rest))
        owed = rest.new_empty(end - start, rest.shape[1])
        for i in range(start, end):
            if i % size == 0:
                ahead = slice(i, min(i + size, len(rest)))
                steps, held = grid.steps(rest[ahead].masked_fill(pruned[ahead], 0).T)
                inverse = steps.inverse
            level = torch.addcmul(steps.zero, rest[i], inverse).round_().clamp_(grid.lowest, grid.highest)
            for number, by in held.items():
                level.masked_fill_(by == i % size, number)
            torch.mul(level.sub_(steps.zero), steps.scale, out=result[i])
            if some_pruned:
                result[i].masked_fill_(pruned[i], 0)
            torch.sub(rest[i], result[i], out=owed[i - start]).div_(passed_on[i, i])
            rest[i + 1 : end].addr_(passed_on[i, i + 1 : end], owed[i - start], alpha=-1)
        rest[end:].addmm_(passed_on[start:end, end:].T, owed, alpha=-1)
    return result.T.contiguous()


def _passed_on(curvature: torch.Tensor) -> torch.Tensor:
    """Upper Cholesky factor of the inverse: row i holds how the error of column i is shared out to later ones."""
    damped = curvature.double()
    # A channel that nothing ever came through has no curvature; any will do.
    mean = float(damped.diagonal().mean()) or 1.0
    damped += _DAMPING * mean * torch.eye(len(damped), dtype=damped.dtype, device=damped.device)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: torch.Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.float()


def relative_error(weight: torch.Tensor, rounded: torch.Tensor, curvature: torch.Tensor) -> float:
    """‖x(W - Q)ᵀ‖² / ‖xWᵀ‖² on texts of that curvature."""

    def energy(matrix: torch.Tensor) -> float:
        return float(((matrix @ curvature) * matrix).sum())

    return energy(weight - rounded) / max(energy(weight), torch.finfo(torch.float32).tiny)
