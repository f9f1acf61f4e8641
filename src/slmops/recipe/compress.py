"""How the student is made small."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from slmops.recipe.search import SearchSettings
from slmops.recipe.settings import Settings


class CompressSettings(Settings):
    """One way to ship a model."""

    runtime: Literal["onnxruntime-genai"] = Field("onnxruntime-genai", description="What runs the shipped model.")
    precision: Literal["int4", "int8", "fp32"] = Field("int4", description="Of the shipped weights.")
    algorithm: Literal["rtn", "k_quant", "gptq"] = Field(
        "rtn",
        description="How values are chosen. rtn rounds to nearest; gptq (int4 alone, int8 loses nothing to rtn) rounds "
        "the layers so that what they make of the training rows changes least.",
    )
    calibration_tokens: int = Field(4096, ge=256, description="Of the training rows, to measure layers on for gptq.")
    block_size: Literal[16, 32, 64, 128] = Field(32, description="Weights that share one scale.")
    head: Literal["int4", "int8"] = Field(
        "int8", description="Of the head of an int4 model, and of the embedding where they are one matrix."
    )

    @property
    def calibrated(self) -> bool:
        """Whether rows are needed to choose the values."""
        return self.algorithm == "gptq" and self.precision == "int4"


class Compress(CompressSettings):
    """How the student is shipped, or how that is found."""

    search: SearchSettings | None = Field(
        None,
        description="Try many ways, and ship the best that keeps what the student can; what is not tried is as above.",
    )
