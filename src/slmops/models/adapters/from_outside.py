"""A low-rank adapter that another program trained: what of its files is read, and what is refused.

Nothing of it is unpickled, and of its configuration sizes alone are taken: PEFT would follow names of code in it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.errors import BadInput
from slmops.models.adapters.files import CONFIG, PREFIX, WEIGHTS
from slmops.models.adapters.targets import linear_layers

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_MOST_CONFIG_BYTES = 1 << 20
_PART = ".lora_A.weight"

_SIZES: Mapping[str, type | tuple[type, ...]] = {
    "r": int,
    "lora_alpha": (int, float),
    "lora_dropout": (int, float),
    "use_rslora": bool,
    "use_dora": bool,
}
_OF_TRAINING = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "inference_mode",
        "init_lora_weights",
        "peft_type",
        "peft_version",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
    }
)
"""Say where it was trained or how it began; where it goes is read off its weights."""

_CHANGES_THE_BASE = ("pissa", "olora", "loftq", "corda", "eva", "lora_ga")
"""Begin the names of ways to begin that take part of the base's weights away, which would be missing then."""


@dataclass(frozen=True)
class Lora:
    """An adapter of low rank.

    Attributes:
        sizes: `r`, `lora_alpha`, `lora_dropout`, `use_rslora`, `use_dora`, as PEFT calls them.
        tensors: by PEFT's names, in the dtype of the file.
    """

    sizes: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]

    @property
    def modules(self) -> list[str]:
        """Names of the linear maps that it belongs to."""
        names = (name.removeprefix(PREFIX).removesuffix(_PART) for name in self.tensors if name.endswith(_PART))
        return sorted(names)


def read_lora(folder: Path) -> Lora:
    """The adapter in `folder`, in PEFT's format.

    Raises:
        BadInput: it is none, is not of low rank, has pickled weights or parts besides, or its weights are not of the
            rank that it says.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for name in (CONFIG, WEIGHTS):
        path = folder / name
        if path.is_symlink() or not path.is_file():
            pickled = name == WEIGHTS and (folder / "adapter_model.bin").exists()
            why = "its weights are pickled, and nothing is unpickled" if pickled else f"it has no file {name}"
            raise BadInput(f"{folder} holds no adapter that is read: {why}", hint="save it as safetensors with PEFT")
    sizes = _sizes(folder / CONFIG)
    try:
        tensors = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError, ValueError) as error:
        raise BadInput(
            f"{folder / WEIGHTS} cannot be read: {error}", hint="copy it again from where it was made"
        ) from error
    found = Lora(sizes, tensors)
    if not found.modules:
        raise BadInput(f"{folder / WEIGHTS} holds no adapter of low rank", hint="train it with method lora")
    for name, tensor in tensors.items():
        if name.endswith(_PART) and (tensor.ndim != 2 or tensor.shape[0] != sizes["r"]):
            raise BadInput(f"{folder / WEIGHTS}: {name} has the shape {list(tensor.shape)}, and r is {sizes['r']}")
    return found


def put_lora(model: PreTrainedModel, lora: Lora) -> None:
    """Put the adapter on `model`, in the model's dtype; its own weights stay as they are.

    Raises:
        BadInput: it belongs to another model.
    """
    from peft import (
        LoraConfig,
        get_peft_model_state_dict,
        inject_adapter_in_model,
        set_peft_model_state_dict,
    )

    if strange := sorted(set(lora.modules) - set(linear_layers(model))):
        raise _of_another(f"{strange[0]} is no linear map of its layers", model)
    sizes = dict(lora.sizes)
    inject_adapter_in_model(LoraConfig(target_modules=lora.modules, task_type="CAUSAL_LM", **sizes), model)
    given = {name.removeprefix(PREFIX): tensor for name, tensor in lora.tensors.items()}
    wanted = get_peft_model_state_dict(model, save_embedding_layers=False)
    if odd := sorted(given.keys() ^ wanted.keys()):
        raise _of_another(f"{odd[0]} is {'not of such an adapter' if odd[0] in given else 'missing'}", model)
    for name, tensor in given.items():
        if tensor.shape != wanted[name].shape:
            raise _of_another(f"{name} has the shape {list(tensor.shape)}, not {list(wanted[name].shape)}", model)
    set_peft_model_state_dict(model, given)


def _of_another(why: str, model: PreTrainedModel) -> BadInput:
    return BadInput(
        f"the adapter does not fit {type(model).__name__}: {why}", hint="give the base that it was trained on"
    )


def _sizes(path: Path) -> dict[str, Any]:
    from peft import LoraConfig

    try:
        if path.stat().st_size > _MOST_CONFIG_BYTES:
            raise ValueError(f"it has more than {_MOST_CONFIG_BYTES} bytes")
        config = json.loads(path.read_bytes())
        if not isinstance(config, dict):
            raise ValueError("it is no object")
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read: {error}", hint="copy it again from where it was made") from None
    if config.get("peft_type") != "LORA":
        raise BadInput(f"{path}: adapters of the type {config.get('peft_type')!r} are not taken", hint="train a LoRA")
    begun = config.get("init_lora_weights")
    if isinstance(begun, str) and begun.lower().startswith(_CHANGES_THE_BASE):
        raise BadInput(
            f"{path}: init_lora_weights: {begun} changes the base, which is not with it", hint="merge it there"
        )
    usual = vars(LoraConfig())
    for name, value in config.items():
        if name not in _OF_TRAINING and name not in _SIZES and value and value != usual.get(name):
            raise BadInput(f"{path}: {name}: {json.dumps(value)[:80]} is not taken", hint="train a plain LoRA or DoRA")
    sizes = {name: config.get(name, usual[name]) for name in _SIZES}
    for name, kind in _SIZES.items():
        if not isinstance(sizes[name], kind) or (kind is not bool and isinstance(sizes[name], bool)):
            raise BadInput(f"{path}: {name} is {json.dumps(sizes[name])[:80]}", hint="train it anew")
    if sizes["r"] < 1 or not all(math.isfinite(sizes[name]) for name in ("lora_alpha", "lora_dropout")):
        raise BadInput(f"{path}: r, lora_alpha and lora_dropout are no sizes of an adapter", hint="train it anew")
    return sizes
