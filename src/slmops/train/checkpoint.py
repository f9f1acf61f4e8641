"""What a training goes on from: tensors, and what was seen of them; a folder of its own that is whole or not there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

TENSORS, STATE = "tensors.safetensors", "state.json"


def last_checkpoint(work: Path) -> Path | None:
    """The newest one below `work`."""
    # One that is being written ends with another name.
    kept = [path.parent for path in work.glob(f"checkpoint-*[0-9]/{STATE}")]
    return max(kept, key=step_of, default=None)


def step_of(checkpoint: Path | None) -> int:
    """The optimiser step that a checkpoint was written behind; 0 without one."""
    return int(checkpoint.name.partition("-")[2]) if checkpoint else 0


def kept_state(checkpoint: Path) -> dict[str, Any]:
    """The `state` that was written into it."""
    state: dict[str, Any] = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    return state


def kept_tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The `tensors` that were, in main memory."""
    return load_file(checkpoint / TENSORS)


def write_checkpoint(work: Path, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
    """Write the checkpoint of a step and drop those before it. It has its name when all of it is on the disk."""
    folder = work / f"checkpoint-{step}"
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    save_tensors(tensors, part / TENSORS)
    (part / STATE).write_text(json.dumps(state), encoding="utf-8")
    sync(part / STATE)
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)
    for older in work.glob("checkpoint-*"):
        if older != folder:
            shutil.rmtree(older)


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write them, and wait until they are on the disk."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    sync(path)


def sync(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
