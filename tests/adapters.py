"""Adapters of the tiny model: random, strong enough to change what it says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmops.compress.adapters import convert_adapters
from slmops.recipe.compress import CompressSettings

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


NAMES = ("first", "second")


@dataclass(frozen=True)
class Adapted:
    """A model of one runtime, and its adapters by name."""

    model: Path
    adapters: dict[str, Path]


def adapted_models(base: Path, out: Path) -> dict[str, Adapted]:
    """By the name of the runtime. The adapters have other ranks, and the second leaves most maps alone."""
    folders = {
        "first": random_adapter(base, out / "first", seed=1, targets=ALL, r=4),
        "second": random_adapter(base, out / "second", seed=2, targets=["q_proj", "v_proj"], r=2, use_rslora=True),
    }
    convert_adapters(base, folders, out / "onnx", CompressSettings(precision="fp32"), scratch=out / "scratch")
    files = {name: out / "onnx" / "adapters" / f"{name}.onnx_adapter" for name in NAMES}
    return {
        "transformers": Adapted(base, folders),
        "onnxruntime-genai": Adapted(out / "onnx" / "model", files),
    }
