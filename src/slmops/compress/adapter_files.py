"""Adapters as an exported base takes them: what fills its slots, in files of megabytes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slmops.compress.slots import PARTS, QKV
from slmops.engines.onnx_slots import READS, WRITES, Array, Slots
from slmops.errors import BadInput
from slmops.models.adapters.low_rank import Update, low_rank_updates

_GATE_UP, _HALVES = "gate_up_proj", ("gate_proj", "up_proj")
_MODULE = re.compile(r"model\.(layers\.\d+)\.(self_attn|mlp)\.(\w+)")


def fitted(base: Path, adapter: Path) -> dict[str, Update]:
    """What the adapter in a folder of PEFT puts into each slot of the base, a Hugging Face folder.

    Where the base has one map for what the export makes in several, each of these gets its rows.

    Raises:
        BadInput: the adapter is more than low-rank updates, changes what no slot is beside, or is of another base.
    """
    sizes = _sizes(base)
    filled: dict[str, Update] = {}
    for name, update in low_rank_updates(adapter).items():
        match = _MODULE.fullmatch(name)
        if match is None:
            raise BadInput(
                f"the adapter in {adapter} changes {name}; slots are beside the maps of layers alone",
                hint="train it on these (target_modules), or merge it",
            )
        layer, part, last = match.groups()
        place = f"{layer}.{'attn' if part == 'self_attn' else part}"
        for one, own in _parts(last, update, sizes):
            if sizes.get(one) != (len(own.reads), own.writes.shape[1]):
                raise BadInput(
                    f"the adapter in {adapter} does not fit {name} of the base {base}", hint="it is of another"
                )
            filled[f"{place}.{one}"] = own
    if not filled:
        raise BadInput(f"the adapter in {adapter} is empty")
    return filled


def slots_for(base: Path, adapters: Mapping[str, Mapping[str, Update]]) -> Slots:
    """The slots that adapters fill. Of queries, keys and values all or none, since they may be one product."""
    sizes = _sizes(base)
    names = {slot for updates in adapters.values() for slot in updates}
    for slot in list(names):
        layer, _, part = slot.rpartition(".")
        if part in PARTS:
            names |= {f"{layer}.{one}" for one in PARTS}
    return {slot: sizes[slot.rpartition(".")[2]] for slot in sorted(names)}


def write_adapter(updates: Mapping[str, Update], file: Path) -> None:
    """Write what fills slots in the form that onnxruntime and onnxruntime-genai read."""
    import onnxruntime

    matrices: dict[str, Array] = {}
    for slot, update in sorted(updates.items()):
        matrices |= {slot + READS: update.reads, slot + WRITES: update.writes}
    made = onnxruntime.AdapterFormat()
    made.set_adapter_version(1)
    made.set_model_version(1)
    made.set_parameters({name: onnxruntime.OrtValue.ortvalue_from_numpy(one) for name, one in matrices.items()})
    file.parent.mkdir(parents=True, exist_ok=True)
    made.export_adapter(str(file))


def _parts(name: str, update: Update, sizes: Mapping[str, tuple[int, int]]) -> Iterator[tuple[str, Update]]:
    """A map as the export has it: all of several parts read the same, and each writes its own."""
    parts = {QKV: PARTS, _GATE_UP: _HALVES}.get(name, (name,))
    if parts == (name,):
        yield name, update
        return
    widths = [sizes[part][1] for part in parts]
    for part, end, width in zip(parts, np.cumsum(widths).tolist(), widths, strict=True):
        yield part, Update(update.reads, np.ascontiguousarray(update.writes[:, end - width : end]))


def _sizes(base: Path) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each map of a layer."""
    if not (base / "config.json").is_file():
        raise BadInput(f"the base {base} holds no config.json", hint="give a Hugging Face model folder")
    config: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    width, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    size = config.get("head_dim") or width // heads
    queries, others = heads * size, (config.get("num_key_value_heads") or heads) * size
    return {
        "q_proj": (width, queries),
        "k_proj": (width, others),
        "v_proj": (width, others),
        "o_proj": (queries, width),
        "gate_proj": (width, inner),
        "up_proj": (width, inner),
        "down_proj": (inner, width),
    }
