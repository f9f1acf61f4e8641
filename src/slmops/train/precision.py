"""Which arithmetic a training computes in: measured on this machine, not read off its name."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import torch

from slmops.models.device import fastest_device

if TYPE_CHECKING:
    from transformers import PretrainedConfig

MARGIN = 1.2
"""How many times as fast bf16 must multiply: a step is more than products, and float32 is the more exact."""

_TOKENS = 128
_ROUND_SECONDS = 0.05
_MAX_ROUNDS = 5


@dataclass(frozen=True)
class Precision:
    """The arithmetic of a training.

    Attributes:
        name: `fp32` or `bf16`.
        fp32_gflops, bf16_gflops: what this machine reached in each; None where neither was measured.
    """

    name: str
    fp32_gflops: float | None = None
    bf16_gflops: float | None = None

    @property
    def dtype(self) -> torch.dtype:
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[self.name]

    def said(self) -> str:
        """One line for people, of what was measured."""
        return (
            f"training in {self.name}: this machine multiplies the model's matrices at {self.fp32_gflops:,.1f} GFLOP/s "
            f"in fp32 and {self.bf16_gflops:,.1f} in bf16"
        )

    def figures(self) -> dict[str, float | str]:
        """`precision`, and `fp32_gflops` and `bf16_gflops` where they were measured."""
        rates = {"fp32_gflops": self.fp32_gflops, "bf16_gflops": self.bf16_gflops}
        return {"precision": self.name, **{name: rate for name, rate in rates.items() if rate is not None}}


def resolve_precision(wanted: str, config: PretrainedConfig) -> Precision:
    """The arithmetic to train the model of `config` in.

    Args:
        wanted: `fp32` and `bf16` are taken as they are. `auto` measures both, once a process for matrices of one
            shape, and is bf16 where that is `MARGIN` times as fast.
    """
    if wanted != "auto":
        return Precision(wanted)
    text = config.get_text_config()
    inner = getattr(text, "intermediate_size", None)
    fp32, bf16 = measured_rates(text.hidden_size, inner if isinstance(inner, int) else 4 * text.hidden_size)
    return Precision("bf16" if bf16 >= MARGIN * fp32 else "fp32", fp32, bf16)


def precisions(wanted: str, config: PretrainedConfig) -> list[Precision]:
    """What `resolve_precision` gives and, where that is open, the other arithmetic, for when the first does not fit."""
    first = resolve_precision(wanted, config)
    if wanted != "auto":
        return [first]
    other = "fp32" if first.name == "bf16" else "bf16"
    return [first, replace(first, name=other)]


@cache
def measured_rates(hidden: int, inner: int) -> tuple[float, float]:
    """GFLOP/s in float32 and in bfloat16 of what a step does with a matrix [inner, hidden], at 128 tokens.

    The two take turns, so that what else the machine does meets both; each is given the best of its rounds.
    """
    device = fastest_device()
    made = torch.Generator().manual_seed(0)
    inputs, weight = (torch.randn(rows, hidden, generator=made) for rows in (_TOKENS, inner))
    pairs = [(inputs.to(device, dtype), weight.to(device, dtype)) for dtype in (torch.float32, torch.bfloat16)]
    for pair in pairs:
        _seconds(*pair)  # the first call chooses kernels
    best = [float("inf"), float("inf")]
    for _ in range(_MAX_ROUNDS):
        seconds = [_seconds(*pair) for pair in pairs]
        best = [min(pair) for pair in zip(best, seconds, strict=True)]
        if sum(seconds) > 2 * _ROUND_SECONDS:
            break
    operations = 3 * 2 * _TOKENS * hidden * inner
    return operations / best[0] / 1e9, operations / best[1] / 1e9


@torch.no_grad()
def _seconds(inputs: torch.Tensor, weight: torch.Tensor) -> float:
    """One forward product and the two of its backward pass."""
    _finish()
    started = time.perf_counter()
    outputs = inputs @ weight.T
    outputs @ weight
    outputs.T @ inputs
    _finish()
    return max(time.perf_counter() - started, 1e-9)


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
