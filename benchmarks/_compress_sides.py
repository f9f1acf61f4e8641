"""The ways to make a model small that are compared: ours, and those of each rival. A new one is a line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _sides import RIVALS


@dataclass(frozen=True)
class Rival:
    """Who else makes models small; `NAME.lock` is its environment and `NAME_side.py` the script that runs in it."""

    name: str
    title: str

    @property
    def lock(self) -> Path:
        return RIVALS / f"{self.name}.lock"

    @property
    def script(self) -> Path:
        return RIVALS / f"{self.name}_side.py"


@dataclass(frozen=True)
class Side:
    """One way.

    Attributes:
        name: in figures; `title`: in tables.
        settings: of ours, those of `slmops.recipe.compress.CompressSettings`; of a rival, what its script knows.
    """

    name: str
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    rival: Rival | None = None


OLIVE, LLAMACPP, OPENVINO = Rival("olive", "Olive"), Rival("llamacpp", "llama.cpp"), Rival("openvino", "OpenVINO")

EXACT = "fp32"
"""The side that loses nothing."""

CHOSEN = "gptq"
"""What the guide advises for a model that writes: the side that rivals are compared with."""

SMALL = "gptq_trimmed"
"""What the guide advises for a quarter of the size: the side that goals of size are for."""

OURS = (
    Side(EXACT, "fp32", {"precision": "fp32"}),
    Side("int8", "int8", {"precision": "int8"}),
    Side("rtn", "int4 rtn", {"algorithm": "rtn"}),
    Side("k_quant", "int4 k_quant", {"algorithm": "k_quant"}),
    Side("gptq", "int4 gptq", {"algorithm": "gptq"}),
    Side("gptq_trimmed", "int4 gptq, vocabulary trimmed", {"algorithm": "gptq", "vocabulary": "trim"}),
    Side("gptq_zeros", "int4 gptq, zero points", {"algorithm": "gptq", "symmetric": False}),
    Side("gptq_int8_layers", "int4 gptq, four layers int8", {"algorithm": "gptq", "int8_layers": 4}),
    Side("awq_gptq", "int4 awq-gptq", {"algorithm": "awq-gptq"}),
    Side("recovered", "int4 rtn, recovered", {"recover": {"epochs": 1, "batch_tokens": 512}}),
    Side("gptq_llamacpp", "int4 gptq, by llama.cpp", {"algorithm": "gptq", "runtime": "llama.cpp"}),
    Side("gptq_openvino", "int4 gptq, by OpenVINO", {"algorithm": "gptq", "runtime": "openvino"}),
)

THEIRS = (
    Side("olive", "Olive int4", rival=OLIVE),
    Side("llamacpp", "llama.cpp Q4_K_M", {"type": "Q4_K_M"}, LLAMACPP),
    Side("llamacpp_q4_0", "llama.cpp Q4_0", {"type": "Q4_0"}, LLAMACPP),
    Side("openvino", "OpenVINO int4", rival=OPENVINO),
)
