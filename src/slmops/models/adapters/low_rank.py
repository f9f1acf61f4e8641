"""A low-rank adapter as what it adds to each matrix, read from a folder of PEFT."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from slmops.errors import BadInput
from slmops.models.adapters.files import PREFIX, AdapterWeights

Array = npt.NDArray[np.float32]

_READS, _WRITES = ".lora_A.weight", ".lora_B.weight"

_MORE = (
    *("use_dora", "lora_bias", "use_qalora", "use_bdlora", "alora_invocation_tokens", "arrow_config", "kasa_config"),
    *("layer_replication", "modules_to_save", "trainable_token_indices", "target_parameters"),
)
"""Settings of PEFT by which an adapter is more than the sum of a matrix and a product of two."""


class Update(NamedTuple):
    """x · reads · writes is added to what a linear map makes of x: float32 [inputs, rank] and [rank, outputs]."""

    reads: Array
    writes: Array


def low_rank_updates(folder: Path) -> dict[str, Update]:
    """What an adapter adds to each linear map, by the map's name; its scale is in `writes`.

    The scale is alpha / rank (Hu et al. 2021, section 4.1), for rsLoRA alpha / √rank (Kalajdzievski 2023).

    Raises:
        BadInput: there is no adapter, or one that is more than this.
    """
    weights = AdapterWeights.load(folder)
    config = weights.config
    more = [name for name in _MORE if config.get(name)]
    if config.get("bias", "none") != "none":
        more.append("bias")
    if config.get("peft_type") != "LORA" or more:
        what = f"is a LoRA with {more[0]}" if more else f"is of the kind {config.get('peft_type')}"
        raise _no_slot(folder, what)
    arrays = {name: tensor.float().numpy() for name, tensor in weights.tensors.items()}
    if odd := sorted(name for name in arrays if not name.endswith((_READS, _WRITES))):
        raise _no_slot(folder, f"has {odd[0]}")
    maps = sorted({name.removesuffix(_READS).removesuffix(_WRITES) for name in arrays})
    return {name.removeprefix(PREFIX): _update(folder, name, arrays, config) for name in maps}


def _update(folder: Path, name: str, arrays: Mapping[str, Array], config: Mapping[str, Any]) -> Update:
    down, up = (arrays.get(name + end) for end in (_READS, _WRITES))
    if down is None or up is None or down.ndim != 2 or up.ndim != 2 or up.shape[1] != len(down) or not len(down):
        raise BadInput(
            f"the adapter in {folder} has half an update of {name.removeprefix(PREFIX)}", hint="copy it again"
        )
    if not (np.isfinite(down).all() and np.isfinite(up).all()):
        raise BadInput(f"the adapter in {folder} has no numbers in {name.removeprefix(PREFIX)}", hint="train it anew")
    alpha = _alpha(name.removeprefix(PREFIX), config)
    scale = alpha / (math.sqrt(len(down)) if config.get("use_rslora") else len(down))
    return Update(np.ascontiguousarray(down.T), np.ascontiguousarray(up.T) * np.float32(scale))


def _alpha(name: str, config: Mapping[str, Any]) -> float:
    """The first pattern that ends the name counts, as in PEFT (`get_pattern_key`)."""
    for pattern, alpha in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return float(alpha)
    return float(config["lora_alpha"])


def _no_slot(folder: Path, what: str) -> BadInput:
    return BadInput(
        f"the adapter in {folder} {what}, which is more than a slot beside a matrix can add",
        hint="merge it into its base and ship that, or train with train.method: lora",
    )
