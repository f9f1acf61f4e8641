"""Where a model computes when nothing is to be timed: on the GPU where there is one, else on the processor."""

from __future__ import annotations


def fastest_device() -> str:
    """`cuda` where PyTorch finds a GPU, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
