"""Whether a model can be loaded, told before that is tried, and whether it runs, told before somebody asks it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from slmops.bundle.manifest import MODEL
from slmops.engines import Running
from slmops.errors import BadInput
from slmops.free_memory import free_bytes
from slmops.models.weight_files import weights_bytes


def check_memory(folder: Path, *, adapters: bool = False) -> None:
    """Refuse the bundle in `folder` where its weights alone are more than there is memory for.

    The system's own way to say so is to end the process.

    Raises:
        BadInput: with how much is there.
    """
    needed, free = weights_bytes(folder / MODEL), free_bytes()
    if adapters:
        # The graph with slots and the one without, each with the weights as its kernels want them.
        needed *= 2
    if needed > free:
        raise BadInput(
            f"the weights in {folder} take {needed / 1e9:.1f} GB of memory, and {max(free, 0) / 1e9:.1f} GB are free",
            hint="end other processes, raise the container's limit, or ship the model smaller",
        )


def check_runs(running: Running, prompt: Sequence[int], folder: Path) -> None:
    """Refuse a model that is loaded and cannot be run, as one whose graph is of another kind.

    Args:
        prompt: of its task; what of it there is room for is run.

    Raises:
        BadInput: it fails, or gives no numbers.
    """
    hint = "export it again for this version of slmops"
    ids = prompt[: running.room - 1]
    try:
        logits = running.run({0: ids[running.begin(0, ids) :]})[0]
    except Exception as error:
        said = str(error).splitlines() or [type(error).__name__]
        raise BadInput(f"the model in {folder} is loaded and cannot be run: {said[0][:200]}", hint=hint) from error
    if not np.isfinite(logits).all():
        raise BadInput(f"the model in {folder} runs and gives no numbers", hint=hint)
