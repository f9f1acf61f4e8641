"""Whether a model can be loaded, told before that is tried, and whether it runs, told before somebody asks it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from slmops.bundle.manifest import MODEL
from slmops.engines import Running
from slmops.errors import BadInput
from slmops.models.weight_files import weights_bytes

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")


def check_memory(folder: Path, *, adapters: bool = False) -> None:
    """Refuse the bundle in `folder` where its weights alone are more than there is memory for.

    The system's own way to say so is to end the process.

    Raises:
        BadInput: with how much is there.
    """
    needed, free = weights_bytes(folder / MODEL), available_bytes()
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


def available_bytes() -> int:
    """Memory that this process may still take: of the machine, and of the control groups that it is in."""
    import psutil

    return min([int(psutil.virtual_memory().available), *_left_in_groups()])


def _left_in_groups() -> list[int]:
    """Bytes that each control group (version 2) above this process leaves it; none where none has a limit."""
    try:
        unified = [line.partition("::")[2] for line in _OWN_GROUP.read_text().splitlines() if line.startswith("0::")]
    except OSError:
        return []
    own = _GROUPS / (unified[0].lstrip("/") if unified else "")
    left = []
    for group in (own, *own.parents):
        if group.is_relative_to(_GROUPS) and (found := _left_in(group)) is not None:
            left.append(found)
    return left


def _left_in(group: Path) -> int | None:
    try:
        most, used = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
        kept = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    # Files that were read count as used, and are given up when memory is wanted.
    return None if most == "max" else int(most) - used + int(kept.get("inactive_file", 0))
