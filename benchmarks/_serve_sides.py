"""Who serves in the serving benchmark: our runtimes, and rivals. A new one is a line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _sides import RIVALS


@dataclass(frozen=True)
class Rival:
    """Who else serves models; `NAME_serving.py` is the script that runs it.

    Attributes:
        own: it lives in this project's environment; else `NAME.lock` is its.
    """

    name: str
    title: str
    own: bool = False

    @property
    def lock(self) -> Path:
        return RIVALS / f"{self.name}.lock"

    @property
    def script(self) -> Path:
        return RIVALS / f"{self.name}_serving.py"


@dataclass(frozen=True, eq=False)
class Side:
    """One way to serve.

    Attributes:
        name: in figures; `title`: in tables.
        settings: of ours, those of `slmops.recipe.compress.CompressSettings`; of a rival, what its script knows.
        once: it is measured in the first round alone, for it takes longer than all others together.
        labels: it stands in the benchmark of labels too.
    """

    name: str
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    rival: Rival | None = None
    once: bool = False
    labels: bool = False


LLAMACPP, OPENVINO = Rival("llamacpp", "llama.cpp"), Rival("openvino", "OpenVINO GenAI")
FOUNDRY, TRANSFORMERS = Rival("foundry", "Foundry Local"), Rival("transformers", "transformers", own=True)

INT4 = "int4"
"""Our side whose folder Foundry Local serves too."""

OURS = (
    Side(INT4, "int4, onnxruntime", {"algorithm": "gptq"}, labels=True),
    Side("int8", "int8, onnxruntime", {"precision": "int8"}, labels=True),
    Side("int4_openvino", "int4, OpenVINO", {"algorithm": "gptq", "runtime": "openvino"}, labels=True),
    Side("int4_llamacpp", "int4, llama.cpp", {"algorithm": "gptq", "runtime": "llama.cpp"}, labels=True),
)

HEADS = (
    Side("int4_head", "int4 label head, onnxruntime", {"algorithm": "gptq"}),
    Side("int8_head", "int8 label head, onnxruntime", {"precision": "int8"}),
    Side("int4_head_openvino", "int4 label head, OpenVINO", {"algorithm": "gptq", "runtime": "openvino"}),
    Side("int8_head_openvino", "int8 label head, OpenVINO", {"precision": "int8", "runtime": "openvino"}),
)
"""Our sides with a head for labels, which serve nothing else."""

EXACT = "transformers"
"""The side that serves the weights as they are."""

THEIRS = (
    Side("llamacpp_q4_0", "llama.cpp Q4_0", {"type": "Q4_0"}, LLAMACPP, labels=True),
    Side("llamacpp_q8_0", "llama.cpp Q8_0", {"type": "Q8_0"}, LLAMACPP, labels=True),
    Side("openvino_int4", "OpenVINO GenAI int4", {"weights": "int4"}, OPENVINO),
    Side("openvino_int8", "OpenVINO GenAI int8", {"weights": "int8"}, OPENVINO),
    Side("foundry", "Foundry Local int4", rival=FOUNDRY, once=True),
    Side(EXACT, "transformers fp32", rival=TRANSFORMERS, once=True),
)
