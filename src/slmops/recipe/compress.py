"""How the student is made small."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from slmops.recipe.search import Runtime, SearchSettings, Vocabulary
from slmops.recipe.settings import Settings
from slmops.recipe.training import Optimisation

Bits = Literal["int4", "int8", "fp32"]
"""What a weight matrix is stored in."""

Half = Literal["fp16", "bf16"]
"""Sixteen bits for every weight: no blocks, no scales."""

PACKED = ("int4", "int8")
"""What comes in blocks."""


_GGUF_BLOCK = 32


class Sparsity(Settings):
    """Weights of the layers that are set to zero: those whose outputs on the training rows are least (Wanda)."""

    pattern: Literal["2:4", "unstructured"] = Field(
        "unstructured", description="2:4 keeps two of every four weights in a row; unstructured any of the row."
    )
    share: float = Field(0.5, gt=0, lt=1, description="Of each row's weights; half of them with 2:4.")

    @model_validator(mode="after")
    def _half_of_four(self) -> Sparsity:
        if self.pattern == "2:4" and self.share != 0.5:
            raise ValueError(f"`pattern: 2:4` sets half of the weights to zero, and `share` is {self.share}")
        return self


class Recover(Optimisation):
    """A short distillation of the rounded student by itself as it was before: the texts are those it learned from."""

    epochs: float = Field(1, gt=0, description="Passes over the rows.")
    learning_rate: float = Field(3e-5, gt=0, description="Peak of a linear warm-up and decay.")


class CompressSettings(Settings):
    """One way to ship a model."""

    runtime: Runtime = Field(
        "onnxruntime-genai",
        description="What runs the shipped model. openvino and llama.cpp have to be installed besides; the latter "
        "takes blocks of 32.",
    )
    precision: Bits | Half = Field(
        "int4", description="Of the layers' weights; fp32 rounds nothing. fp16 and bf16 are for llama.cpp."
    )
    algorithm: Literal["rtn", "k_quant", "gptq", "awq", "awq-gptq"] = Field(
        "gptq",
        description="How values are chosen; left out, it is rtn but for int4, and for what recovers or learned on its "
        "grid. rtn rounds to nearest; k_quant searches scales by the weights alone; gptq and awq go by what the "
        "layers make of the training rows: gptq lets weights make up for each other, awq first scales up what matters; "
        "awq-gptq does both.",
    )
    vocabulary: Vocabulary = Field(
        "keep",
        description="trim keeps the tokens that the training rows, the pool and the labels are made of, and "
        "`extra_tokens` more; any other text is spelled in smaller pieces. For a model that was trained with a whole "
        "vocabulary.",
    )
    extra_tokens: int = Field(
        4000, ge=0, description="Most frequent tokens that a trimmed vocabulary has besides, by merge rank."
    )
    calibration_tokens: int = Field(
        4096,
        ge=256,
        description="Of the training rows and the pool, to measure layers on; test rows are not looked at.",
    )
    block_size: Literal[16, 32, 64, 128] = Field(32, description="Weights that share one scale.")
    symmetric: bool = Field(
        True, description="false gives each block a zero point beside its scale; k_quant always does."
    )
    int8_layers: int = Field(
        0, ge=0, description="Layers of an int4 model that stay in int8: those whose rounding changes the output most."
    )
    head: Bits = Field("int8", description="Of a rounded model's head, and of its embedding unless that is told.")
    embedding: Bits | None = Field(
        None,
        description="null: as the head, and stored once where they are one matrix; else a matrix of its own.",
    )
    activations: Literal["int8", "fp32"] = Field(
        "int8",
        description="What packed weights are multiplied in: int8 rounds what comes in; which is faster, measure.",
    )
    sparsity: Sparsity | None = Field(None, description="Set weights to zero before they are rounded; null keeps all.")
    recover: Recover | None = Field(
        None,
        description="Train the student once more with its weights rounded, to say what it said before; null does not.",
    )

    @model_validator(mode="before")
    @classmethod
    def _nearest_where_that_will_do(cls, given: Any) -> Any:
        """More bits lose next to nothing however their values are chosen, and recovery trains for the nearest ones."""
        if not isinstance(given, Mapping) or "algorithm" in given:
            return given
        near = given.get("precision", "int4") != "int4" or given.get("recover") is not None
        return {**given, "algorithm": "rtn"} if near else given

    @model_validator(mode="after")
    def _rounds_what_it_says(self) -> CompressSettings:
        if not self.packed:
            for name in ("algorithm", "block_size", "symmetric", "int8_layers", "head", "embedding", "activations"):
                unsaid = "rtn" if name == "algorithm" else type(self).model_fields[name].default
                if (given := getattr(self, name)) != unsaid:
                    raise ValueError(
                        f"`{name}: {given}` is of packed weights, and `precision: {self.precision}` packs none"
                    )
        if self.int8_layers and self.precision != "int4":
            raise ValueError(f"`int8_layers` is of an int4 model, and `precision` is {self.precision}")
        if self.algorithm == "k_quant" and not self.symmetric:
            raise ValueError("`algorithm: k_quant` always has zero points: leave `symmetric` out")
        return self

    @model_validator(mode="after")
    def _cuts_what_it_says(self) -> CompressSettings:
        if self.vocabulary == "keep" and self.extra_tokens != type(self).model_fields["extra_tokens"].default:
            raise ValueError(
                f"`extra_tokens: {self.extra_tokens}` is of `vocabulary: trim`, and this one keeps all: leave one out"
            )
        return self

    @model_validator(mode="after")
    def _runs_where_it_says(self) -> CompressSettings:
        if self.runtime != "llama.cpp" and self.precision in get_args(Half):
            raise ValueError(
                f"`precision: {self.precision}` is what llama.cpp computes with; {self.runtime} would turn it to "
                "float32 as it loads it: set `runtime: llama.cpp`, or `int8`, which is half of that"
            )
        if self.runtime != "llama.cpp" or not self.packed:
            return self
        if self.block_size != _GGUF_BLOCK:
            raise ValueError(f"`runtime: llama.cpp` has blocks of {_GGUF_BLOCK}, and `block_size` is {self.block_size}")
        if self.activations != "int8":
            raise ValueError(
                "`runtime: llama.cpp` always rounds what packed weights are multiplied with: leave out `activations`"
            )
        zeros = not self.symmetric or self.algorithm == "k_quant"
        eight = {"int8"} & {self.precision, self.head, self.embedding} or self.int8_layers
        if zeros and eight:
            raise ValueError(
                "`runtime: llama.cpp` has zero points in four bits alone: leave out `symmetric` and k_quant, or set "
                "`head: int4` (and no `int8_layers`)"
            )
        return self

    @model_validator(mode="after")
    def _recovers_what_ships(self) -> CompressSettings:
        if self.recover is None:
            return self
        if not self.packed:
            raise ValueError(
                f"`recover` wins back what rounding to few bits takes, and `precision: {self.precision}` has many"
            )
        if self.algorithm != "rtn":
            raise ValueError(
                f"`recover` trains for rtn, and `algorithm: {self.algorithm}` would round the student once more: leave "
                "one of them out"
            )
        if self.int8_layers:
            raise ValueError("`recover` trains for one grid of all layers, and `int8_layers` are chosen after it")
        if self.sparsity:
            raise ValueError("`recover` moves every weight, and `sparsity` would set some to zero after it")
        return self

    @property
    def packed(self) -> bool:
        """Whether weights become blocks of few bits with a scale each."""
        return self.precision in PACKED

    @property
    def calibrated(self) -> bool:
        """Whether rows are needed to choose the values."""
        by_rows = self.algorithm in ("gptq", "awq", "awq-gptq")
        return by_rows or self.int8_layers > 0 or self.sparsity is not None

    @property
    def trims(self) -> bool:
        """Whether tokens are left out that the rows do not need."""
        return self.vocabulary == "trim"

    @property
    def reads_rows(self) -> bool:
        """Whether rows are needed at all."""
        return self.calibrated or self.trims

    @property
    def whole(self) -> CompressSettings:
        """The same with every token."""
        fields = type(self).model_fields
        return self.model_copy(update={name: fields[name].default for name in ("vocabulary", "extra_tokens")})


class Compress(CompressSettings):
    """How the student is shipped, or how that is found."""

    search: SearchSettings | None = Field(
        None,
        description="Try many ways, and ship the best that keeps what the student can; what is not tried is as above.",
    )
