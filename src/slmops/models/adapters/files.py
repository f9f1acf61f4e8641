"""The files of an adapter, as PEFT names them, and which models cannot do without theirs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.errors import BadInput

if TYPE_CHECKING:
    import torch

ADAPTER, CONFIG, WEIGHTS = "adapter", "adapter_config.json", "adapter_model.safetensors"

OF = "adapter:"
"""Begins the names of a stage's inputs that hold an adapter."""

PREFIX = "base_model.model."
"""Begins every name of a weight that belongs to a module of the model."""


def named(inputs: Mapping[str, Path]) -> dict[str, Path]:
    """The inputs that hold an adapter, by its name."""
    return {name.removeprefix(OF): path for name, path in inputs.items() if name.startswith(OF)}


@dataclass(frozen=True)
class AdapterWeights:
    """An adapter on its own.

    Attributes:
        config: `adapter_config.json`: `peft_type` and the sizes.
        tensors: float32, by PEFT's names.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]

    @property
    def size_bytes(self) -> int:
        """Of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def save(self, folder: Path) -> None:
        """Write both files; PEFT reads them, but for a bottleneck, which it does not know."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in self.tensors.items()}, folder / WEIGHTS)
        text = json.dumps(self.config, indent=2, sort_keys=True) + "\n"
        (folder / CONFIG).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> AdapterWeights:
        """What `save` wrote.

        Raises:
            BadInput: the folder holds no adapter.
        """
        from safetensors.torch import load_file

        if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
            raise BadInput(f"{folder} holds no adapter", hint=f"it is made of {CONFIG} and {WEIGHTS}")
        return cls(json.loads((folder / CONFIG).read_text(encoding="utf-8")), load_file(folder / WEIGHTS))


def is_adapted(folder: Path) -> bool:
    """Whether the model in `folder` needs the adapter beside it, which is no part of its weights."""
    return (folder / ADAPTER / CONFIG).is_file()


def refuse_adapted(folder: Path) -> None:
    """Refuse to take a model whose adapter would be left behind: to export it, or to begin from it.

    Raises:
        BadInput: it has one.
    """
    if is_adapted(folder):
        kind = json.loads((folder / ADAPTER / CONFIG).read_text(encoding="utf-8"))["peft_type"]
        raise BadInput(
            f"the model in {folder} answers with an adapter that cannot be merged into its weights ({kind}), so it can "
            "be evaluated and not exported",
            hint="train with train.method: lora, whose adapter can be merged",
        )
