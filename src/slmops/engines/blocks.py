"""Matrices of whole numbers in blocks with a scale each, as models ship them: what of them formats have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from slmops.errors import BadInput

GGUF_BLOCK = 32
"""Weights of a block of Q4_0, Q4_1 and Q8_0."""


@dataclass(frozen=True)
class Blocks:
    """A matrix [rows, width] in blocks along its rows: a weight is (level - zero) · scale.

    Attributes:
        bits: 4 or 8; without zeros, half of the levels is what means zero.
        width: columns; the last block of a row may go beyond.
        levels: uint8 [rows, blocks, size].
        scales: float16 or float32 [rows, blocks].
        zeros: uint8 [rows, blocks], or None.
    """

    bits: int
    width: int
    levels: npt.NDArray[np.uint8]
    scales: npt.NDArray[Any]
    zeros: npt.NDArray[np.uint8] | None = None

    def values(self) -> npt.NDArray[np.float32]:
        """The weights, float32 [rows, width]."""
        middle: Any = 1 << self.bits - 1 if self.zeros is None else self.zeros[..., None]
        whole = (self.levels.astype(np.float32) - middle) * self.scales[..., None].astype(np.float32)
        matrix: npt.NDArray[np.float32] = whole.reshape(len(whole), -1)[:, : self.width]
        return matrix

    def by_rows(self, turn: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> Blocks:
        """The same blocks in rows that `turn` takes or sets in another order."""
        zeros = None if self.zeros is None else turn(self.zeros)
        return replace(self, levels=turn(self.levels), scales=turn(self.scales), zeros=zeros)

    def over(self, other: Blocks) -> Blocks:
        """These rows above those of a matrix that is packed alike."""
        zeros = None if self.zeros is None or other.zeros is None else np.concatenate([self.zeros, other.zeros])
        levels, scales = np.concatenate([self.levels, other.levels]), np.concatenate([self.scales, other.scales])
        return replace(self, levels=levels, scales=scales, zeros=zeros)

    def in_blocks_of(self, size: int) -> Blocks:
        """The same weights in smaller blocks, of which several then have one scale.

        Raises:
            BadInput: such blocks do not go into these, or into the width.
        """
        mine = self.levels.shape[2]
        if mine % size or self.width % size:
            raise BadInput(f"blocks of {mine} weights in rows of {self.width} are no blocks of {size}")
        count = self.width // size
        levels = self.levels.reshape(len(self.levels), -1)[:, : self.width].reshape(len(self.levels), count, size)
        scales = np.repeat(self.scales, mine // size, axis=1)[:, :count]
        zeros = None if self.zeros is None else np.repeat(self.zeros, mine // size, axis=1)[:, :count]
        return replace(self, levels=levels, scales=scales, zeros=zeros)


def gguf_kind(blocks: Blocks) -> str:
    """What GGUF calls such blocks.

    Raises:
        BadInput: it has no zero points in eight bits.
    """
    if blocks.bits == 4:
        return "Q4_0" if blocks.zeros is None else "Q4_1"
    if blocks.zeros is not None:
        raise BadInput("GGUF has no zero points in eight bits", hint="set compress.symmetric: true")
    return "Q8_0"


def gguf_bytes(blocks: Blocks) -> npt.NDArray[np.uint8]:
    """The bytes of each row, [rows, bytes]: of every block its scale, of Q4_1 what level 0 means, and its levels.

    Args:
        blocks: of `GGUF_BLOCK` weights.
    """
    scales = blocks.scales.astype(np.float16)
    parts = [scales[..., None].view(np.uint8)]
    if blocks.bits == 8:
        parts.append((blocks.levels - np.uint8(128)).view(np.uint8))
    else:
        if blocks.zeros is not None:
            parts.append((-blocks.zeros.astype(np.float32) * scales).astype(np.float16)[..., None].view(np.uint8))
        half = blocks.levels.shape[2] // 2
        # The first half of a block is in the lower halves of its bytes.
        parts.append(blocks.levels[..., :half] | blocks.levels[..., half:] << np.uint8(4))
    return np.concatenate(parts, axis=-1).reshape(len(scales), -1)
