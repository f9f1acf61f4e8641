"""Rounding weights to the grid they will ship on, so that a student learns with the values it will have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch


class Steps(NamedTuple):
    """How blocks of weights are divided: a weight is a whole number of `scale` away from `zero`.

    Attributes:
        scale, zero: float32, of the same shape.
    """

    scale: torch.Tensor
    zero: torch.Tensor

    @property
    def inverse(self) -> torch.Tensor:
        """One over the scale; 0 for a block of zeros, which has none."""
        return torch.where(self.scale == 0, 0.0, 1 / self.scale)


@dataclass(frozen=True)
class Grid:
    """The values that onnxruntime's own block quantiser gives weights, one scale for every `block_size` inputs.

    Symmetric, the value of largest magnitude in a block becomes the lowest level, -8 of -8 to 7 in four bits. With zero
    points, the lowest value becomes level 0 and the highest the last one, 15; zero is always among them. So rounding
    what is rounded already changes nothing: what was trained, or chosen otherwise, is what ships.
    """

    bits: int
    block_size: int
    symmetric: bool = True

    @property
    def lowest(self) -> int:
        """Level."""
        return -(1 << self.bits - 1) if self.symmetric else 0

    @property
    def highest(self) -> int:
        """Level."""
        return self.lowest + (1 << self.bits) - 1

    @torch.no_grad()
    def __call__(self, weight: torch.Tensor, /, *, out: torch.Tensor | None = None) -> torch.Tensor:
        """`weight` [out, in], float32, on the grid.

        Args:
            out: where the result goes, of the shape and type of `weight`. It is half the time: memory that a training
                step asks for anew is handed out page by page.
        """
        rows, columns = weight.shape
        out = torch.empty_like(weight) if out is None else out
        padding = -columns % self.block_size
        if padding:
            padded = torch.nn.functional.pad(weight, (0, padding))
            return out.copy_(self(padded)[:, :columns])
        blocks, result = (each.view(rows, -1, self.block_size) for each in (weight, out))
        steps = self._steps(blocks.amin(-1, keepdim=True), blocks.amax(-1, keepdim=True))
        torch.mul(blocks, steps.inverse, out=result)
        if self.symmetric:
            result.round_().clamp_(self.lowest, self.highest).mul_(steps.scale)
        else:
            result.add_(steps.zero).round_().clamp_(self.lowest, self.highest).sub_(steps.zero).mul_(steps.scale)
        return out

    @torch.no_grad()
    def steps(self, block: torch.Tensor) -> tuple[Steps, dict[int, torch.Tensor]]:
        """The steps of each row of one block [out, in], and which weights they are set by.

        Returns:
            Steps [out], and of a level the column whose weight must have it for the block to get the same steps again,
            [out]; -1 where any will do.
        """
        highest, lowest = block.max(-1), block.min(-1)
        steps = self._steps(lowest.values, highest.values)
        if self.symmetric:
            by = torch.where(highest.values > -lowest.values, highest.indices, lowest.indices)
            return steps, {self.lowest: by}
        # A block without a weight below zero, or above, reaches to zero all the same.
        return steps, {
            self.lowest: torch.where(lowest.values < 0, lowest.indices, -1),
            self.highest: torch.where(highest.values > 0, highest.indices, -1),
        }

    def _steps(self, lowest: torch.Tensor, highest: torch.Tensor) -> Steps:
        if self.symmetric:
            scale = torch.where(highest > -lowest, highest, lowest) / self.lowest
            return Steps(scale, torch.zeros_like(scale))
        lowest, highest = lowest.clamp(max=0), highest.clamp(min=0)
        scale = (highest - lowest) / self.highest
        zero = torch.where(scale == 0, 2.0 ** (self.bits - 1), -lowest / scale)
        return Steps(scale, zero.round().clamp(self.lowest, self.highest))
