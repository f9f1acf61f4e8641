"""How a search for the best way to ship a student is bounded."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from slmops.recipe.settings import Settings

Objective = Literal["latency", "size", "memory"]
Algorithm = Literal["rtn", "k_quant", "gptq", "awq", "awq-gptq"]
Runtime = Literal["onnxruntime-genai", "openvino", "llama.cpp"]
Vocabulary = Literal["keep", "trim"]
CONFIDENCE = 0.95


class Device(Settings):
    """What the model will run on: candidates are measured within these bounds."""

    threads: int = Field(0, ge=0, description="Cores that a model may use; 0 takes all.")
    memory_mb: int | None = Field(
        None, ge=64, description="Resident memory of the process that runs it, at most; null sets no bound."
    )


class Bound(Settings):
    """How far a figure of a candidate may lie below the student's on the same rows."""

    max_drop: float = Field(0.01, ge=0, lt=1, description="0.01: a point.")
    confidence: float = Field(0.95, description="The whole interval of the paired drop must lie within; 0.95 alone.")

    @field_validator("confidence")
    @classmethod
    def _known(cls, confidence: float) -> float:
        if confidence != CONFIDENCE:
            raise ValueError(f"{confidence} cannot be had; the intervals of an evaluation are 95 %, so give 0.95")
        return confidence


class Tried(Settings):
    """What candidates are made of: every combination that means something."""

    runtime: Annotated[list[Runtime], Field(min_length=1)] | None = Field(
        None, description="What runs them; null: `compress.runtime` alone."
    )
    vocabulary: Annotated[list[Vocabulary], Field(min_length=1)] | None = Field(
        None, description="Which tokens they have; null: as `compress.vocabulary` says."
    )
    precision: Annotated[list[Literal["int4", "int8", "fp16", "bf16", "fp32"]], Field(min_length=1)] = Field(
        ["int4", "int8", "fp32"], description="Of the weights; fp16 and bf16 are for llama.cpp."
    )
    algorithm: Annotated[list[Algorithm], Field(min_length=1)] = Field(
        ["rtn", "gptq", "awq-gptq"], description="How int4 values are chosen."
    )
    block_size: Annotated[list[Literal[16, 32, 64, 128]], Field(min_length=1)] = Field(
        [32, 128], description="int4 weights that share a scale."
    )
    head: Annotated[list[Literal["int4", "int8"]], Field(min_length=1)] = Field(
        ["int4", "int8"], description="Of the head of an int4 model."
    )
    int8_layers: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = Field(
        [0], description="Layers of an int4 model that stay in int8."
    )


class SearchSettings(Settings):
    """The smallest and fastest model that still does the job: many candidates, and proof for the one that ships."""

    minimise: Annotated[list[Objective], Field(min_length=1)] = Field(
        ["latency", "size"],
        description="What counts, most important first; a later one decides where an earlier one is within 5 %.",
    )
    subject_to: dict[str, Bound] = Field(
        default_factory=dict,
        description="Figure of the task to its bound; the task's main figure, a point, when empty.",
    )
    device: Device = Field(default_factory=Device, description="What the model will run on.")
    rows: Literal["validation", "test"] = Field(
        "validation",
        description="Where the drop is measured. Rows that chose a model flatter it: with `test`, which are mostly "
        "more, what is said of these rows afterwards is no longer independent.",
    )
    screen_rows: int = Field(48, ge=8, description="Of them that every candidate is screened on.")
    finalists: int = Field(6, ge=1, description="Candidates that answer all of them.")
    candidates: Tried = Field(default_factory=Tried, description="What is tried.")
