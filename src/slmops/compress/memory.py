"""What a conversion will need of memory, told before it starts instead of found out when it is killed."""

from __future__ import annotations

import math
from pathlib import Path

import psutil

from slmops.console import size
from slmops.errors import BadInput

_FLOAT32 = 4

COPIES = 2.0
"""Of the weights in float32 at the peak. With 127 million (0.5 GB) the exporter took 1.1 GB in all, packing 1.0."""

BASE_BYTES = 700_000_000
"""What the libraries take that export and look into a model, whatever its size."""


def parameters_in(model: Path) -> int:
    """Weights in the safetensors of a Hugging Face folder, from their shapes alone."""
    from safetensors import safe_open

    count = 0
    for path in sorted(model.glob("*.safetensors")):
        with safe_open(path, framework="np") as file:
            count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return count


def check_memory(model: Path) -> None:
    """Refuse a model that is too large to be converted here.

    Raises:
        BadInput: says how much it needs and how much there is.
    """
    parameters, available = parameters_in(model), int(psutil.virtual_memory().available)
    needed = int(BASE_BYTES + COPIES * _FLOAT32 * parameters)
    if needed > available:
        raise BadInput(
            f"converting {parameters:,} weights needs about {size(needed)} of memory, and {size(available)} are "
            "available",
            hint="convert it on a machine with more, close what else runs here, or ship a smaller student "
            "(student.carve.layers)",
        )
