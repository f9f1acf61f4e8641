"""Adapters of the tiny model, in PEFT's format: random, strong enough to change what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]


def random_adapter(base: Path, out: Path, *, seed: int, targets: list[str] | str = ALL, **config: Any) -> Path:
    """A LoRA of the model in `base`, drawn by `seed`, in the folder `out`."""
    import torch
    from peft import LoraConfig, get_peft_model

    from slmops.models.source import load_model

    torch.manual_seed(seed)
    settings = {"r": 4, "lora_alpha": 8, **config}
    model = get_peft_model(load_model(base), LoraConfig(target_modules=targets, task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.copy_(0.15 * torch.randn_like(weight))
    model.save_pretrained(str(out))
    return out
