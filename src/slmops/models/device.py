"""Where a model computes when nothing is to be timed: on the GPU where there is one, else on the processor."""

from __future__ import annotations

import os
from functools import cache


@cache
def fastest_device() -> str:
    """`cuda` where PyTorch finds a GPU, else `cpu`. The GPU is then made ready for batches of ever other shapes."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    # Each new shape would want a plan of cuDNN's attention, and a piece of memory of its own size.
    torch.backends.cuda.enable_cudnn_sdp(False)
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    return "cuda"
