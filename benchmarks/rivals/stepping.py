"""What trainers of rivals that stand on transformers share: its arguments that are ours as well, and times of steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def alike(job: dict[str, Any]) -> dict[str, Any]:
    """Arguments of transformers that put its optimiser as near to ours as it allows, and switch off what only tells."""
    moved = job["optimisation"]
    return {
        "num_train_epochs": moved["epochs"],
        "max_steps": job["max_steps"],
        "per_device_train_batch_size": job["rows_per_batch"],
        "learning_rate": moved["learning_rate"],
        "lr_scheduler_type": "linear",
        "warmup_steps": moved["warmup"],
        "weight_decay": moved["weight_decay"],
        "adam_beta1": job["betas"][0],
        "adam_beta2": job["betas"][1],
        "max_grad_norm": 1.0,
        "bf16": False,
        "use_cpu": True,
        "seed": job["seed"],
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def steps(tokens: Sequence[int], ends: Sequence[tuple[float, float]]) -> list[dict[str, float]]:
    """Tokens and seconds of each step, by the clock and of cores.

    Args:
        tokens: of each batch, without padding; what was made ahead of the last step is left out.
        ends: seconds before the first step and after each.
    """
    return [
        {"tokens": count, "seconds": end[0] - begin[0], "cpu_s": end[1] - begin[1]}
        for count, begin, end in zip(tokens, ends, ends[1:], strict=False)
    ]
