"""Rounding weights to the grid they will ship on, so that a student learns with the values it will have."""

from __future__ import annotations

import torch

LEVELS = 8
"""Four bits with a sign: -8 to 7 times the scale of a block."""


def to_int4_grid(weight: torch.Tensor, block_size: int) -> torch.Tensor:
    """`weight` [out, in] rounded to symmetric 4-bit values with one scale per `block_size` inputs.

    The value of largest magnitude in a block becomes -8 scales, as in onnxruntime's own block quantiser, so quantising
    the result again changes nothing: what was trained is what ships.
    """
    rows, columns = weight.shape
    padding = -columns % block_size
    blocks = torch.nn.functional.pad(weight, (0, padding)).view(rows, -1, block_size)
    highest, lowest = blocks.amax(-1, keepdim=True), blocks.amin(-1, keepdim=True)
    scale = torch.where(highest > -lowest, highest, lowest) / -LEVELS
    # A block of zeros has no scale; any other one keeps its zeros.
    inverse = torch.where(scale == 0, 0.0, 1 / scale)
    steps = (blocks * inverse).round_().clamp_(-LEVELS, LEVELS - 1)
    return steps.mul_(scale).view(rows, -1)[:, :columns]
