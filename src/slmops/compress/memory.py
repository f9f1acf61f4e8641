"""What a conversion will need of memory, told before it starts instead of found out when it is killed."""

from __future__ import annotations

import json
from pathlib import Path

import psutil

from slmops.console import size
from slmops.errors import BadInput
from slmops.models.weight_files import weights_bytes

COPIES = 2.0
"""Of the weights in float32 at the peak. With 127 million (0.5 GB) the exporter took 1.1 GB in all, packing 1.0."""

BASE_BYTES = 700_000_000
"""What the libraries take that export and look into a model, whatever its size."""


def float32_bytes(model: Path) -> int:
    """What the weights in a Hugging Face folder take in float32, by the size of their files."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    stored = config.get("dtype") or config.get("torch_dtype") or "float32"
    return weights_bytes(model) * (1 if stored == "float32" else 2)


def check_memory(model: Path) -> None:
    """Refuse a model that is too large to be converted here.

    Raises:
        BadInput: says how much it needs and how much there is.
    """
    weights, available = float32_bytes(model), int(psutil.virtual_memory().available)
    needed = int(BASE_BYTES + COPIES * weights)
    if needed > available:
        raise BadInput(
            f"converting a model of {size(weights)} in float32 needs about {size(needed)} of memory, and "
            f"{size(available)} are available",
            hint="convert it on a machine with more, close what else runs here, or ship a smaller student "
            "(student.carve.layers)",
        )
