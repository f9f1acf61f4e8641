"""Rounding weights to the grid they will ship on, so that a student learns with the values it will have."""

from __future__ import annotations

import torch

LEVELS = 8
"""Four bits with a sign: -8 to 7 times the scale of a block."""


@torch.no_grad()
def to_int4_grid(weight: torch.Tensor, block_size: int, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """`weight` [out, in] rounded to symmetric 4-bit values with one scale per `block_size` inputs.

    The value of largest magnitude in a block becomes -8 scales, as in onnxruntime's own block quantiser, so quantising
    the result again changes nothing: what was trained is what ships.

    Args:
        out: where the result goes, of the shape and type of `weight`. It is half the time: memory that a training step
            asks for anew is handed out page by page.
    """
    rows, columns = weight.shape
    out = torch.empty_like(weight) if out is None else out
    padding = -columns % block_size
    if padding:
        padded = torch.nn.functional.pad(weight, (0, padding))
        return out.copy_(to_int4_grid(padded, block_size)[:, :columns])
    blocks, result = weight.view(rows, -1, block_size), out.view(rows, -1, block_size)
    highest, lowest = blocks.amax(-1, keepdim=True), blocks.amin(-1, keepdim=True)
    scale = _scale(highest, lowest)
    # A block of zeros has no scale; any other one keeps its zeros.
    inverse = torch.where(scale == 0, 0.0, 1 / scale)
    torch.mul(blocks, inverse, out=result)
    result.round_().clamp_(-LEVELS, LEVELS - 1).mul_(scale)
    return out


@torch.no_grad()
def scales(block: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale of each row of one block [out, in] as `to_int4_grid` sets it, and which weight it is set by: [out]."""
    highest, lowest = block.max(-1), block.min(-1)
    by = torch.where(highest.values > -lowest.values, highest.indices, lowest.indices)
    return _scale(highest.values, lowest.values), by


def _scale(highest: torch.Tensor, lowest: torch.Tensor) -> torch.Tensor:
    return torch.where(highest > -lowest, highest, lowest) / -LEVELS
