"""How weights are moved, and what a student is trained by."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from slmops.recipe.objective import (
    Objective,
    imitate_words_and_probabilities,
    in_pieces,
    something_to_learn,
)
from slmops.recipe.own import CallbackSettings, arguments_apart
from slmops.recipe.settings import File, Settings, Share
from slmops.recipe.tuning import Tuned, with_defaults


class StopEarly(Settings):
    """When to stop: the loss on the validation rows, which no step is taken on, no longer falls."""

    patience: int = Field(3, ge=1, description="Evaluations in a row without a new lowest loss before training stops.")
    every: float = Field(0.5, gt=0, le=1, description="Share of a pass over the rows between two evaluations.")


class Optimisation(Settings):
    """How weights are moved, for teachers and students alike."""

    epochs: float = Field(3, gt=0, description="Passes over the rows.")
    learning_rate: float = Field(2e-4, gt=0, description="Peak of a linear warm-up and decay.")
    batch_tokens: int = Field(1024, ge=32, description="Tokens that go through the model at once, padding included.")
    accumulate: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        1,
        description="Batches in one optimiser step; its loss is the mean over all their answer tokens. auto: one, "
        "whose rows go through the model in as many pieces as the memory asks for; the step is the same.",
    )
    checkpoint_activations: bool | Literal["auto"] = Field(
        False,
        description="Compute activations again in the backward pass: far less memory, a third more time; auto does so "
        "where the training would not fit into the memory otherwise.",
    )
    warmup: Share = Field(0.1, description="Share of the steps spent warming up.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's pull of every weight towards zero.")
    freeze_layers: int = Field(
        0, ge=0, description="Lowest layers that stay as they are, and the embeddings with them: far cheaper steps."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Arithmetic of training; auto measures both and takes bf16 where it is 1.2 times as fast; "
        "where that one would not fit into the memory, the other.",
    )
    stop_early: StopEarly | None = Field(
        None, description="null trains to the end; else the weights of the lowest validation loss come out."
    )
    max_too_long: Share = Field(
        0.0, description="Share of the rows that may be left out for being longer than the model's context."
    )
    tensorboard: bool = Field(False, description="Write event files for TensorBoard; needs `slmops[tensorboard]`.")
    checkpoint_seconds: float = Field(60, gt=0, description="Time between two checkpoints.")

    @property
    def batches_per_step(self) -> int:
        """Batches of one process in one optimiser step."""
        return 1 if self.accumulate == "auto" else self.accumulate


WHOLE = frozenset({"qlora", "bottleneck", "prompt"})
"""Methods that need whole weights in every process: packed ones, and adapters between layers."""


class Fsdp(Settings):
    """Share weights, gradients and the optimiser's state out over processes (fully sharded data parallel)."""

    reshard_after_forward: bool = Field(
        True,
        description="Free a layer's gathered weights behind its forward pass and gather them again for the backward "
        "one: less memory, more traffic.",
    )


class Together(Settings):
    """By how many processes of this machine a model is trained. It changes who does the work, not what is learned."""

    processes: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        1,
        description="Processes that train together, on a GPU each where there are any. They share the `accumulate` "
        "batches of every step; auto: as many as there are GPUs and batches, one without a GPU.",
    )
    fsdp: Fsdp | None = Field(
        None,
        description="Each process holds a part of every weight, gradient and moment; null: each holds the whole model.",
    )


class Tuning(Together, Optimisation, Tuned):
    """How weights are moved, which, and by how many processes."""

    learning_rate: float = Field(
        2e-4,
        gt=0,
        description="Peak of a linear warm-up and decay. Without one: 2e-4 with full, 1e-3 with lora, rslora, dora, "
        "qlora and bottleneck, 1e-2 with ia3, 3e-2 with prompt.",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_the_method(cls, given: Any) -> Any:
        return with_defaults(given)

    @model_validator(mode="after")
    def _prompt_from_below(self) -> Tuning:
        if self.method == "prompt" and self.freeze_layers:
            raise ValueError(
                "`freeze_layers` runs the lowest layers once, and the tokens of `method: prompt` go through all of "
                "them anew in every step: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _same_in_pieces(self) -> Tuning:
        if self.accumulate == "auto" and self.adapter.dropout:
            raise ValueError(
                "`accumulate: auto` goes by the memory that is free, and with `adapter.dropout` a batch in pieces "
                "draws other chances: set it to a number"
            )
        return self

    @model_validator(mode="after")
    def _what_olive_has(self) -> Tuning:
        if self.backend != "olive":
            return self
        if asked := [name for name in ("stop_early", "tensorboard") if getattr(self, name)]:
            raise ValueError(f"`{asked[0]}` is of the trainer here, and `backend: olive` trains to the end without it")
        if self.processes != 1:
            raise ValueError("`processes` are of the trainer here, and `backend: olive` trains in one")
        if asked := [name for name in ("accumulate", "checkpoint_activations") if getattr(self, name) == "auto"]:
            raise ValueError(f"`{asked[0]}: auto` is of the trainer here, and `backend: olive` needs to be told")
        if self.method == "qlora" and self.freeze_layers:
            raise ValueError("`freeze_layers`: Olive's QLoRA trains an adapter in every layer; leave it out")
        return self

    @model_validator(mode="after")
    def _a_share_for_each_process(self) -> Tuning:
        if self.processes != 1 and self.accumulate == "auto":
            raise ValueError(
                "`processes` share the batches of a step, and `accumulate: auto` makes one: set it to a number"
            )
        if isinstance(self.processes, int) and self.processes > self.batches_per_step:
            raise ValueError(
                f"`processes: {self.processes}` share the batches of a step, and `accumulate: {self.accumulate}` has "
                "too few: raise it, and lower `batch_tokens` as much for a step of the same size"
            )
        if self.fsdp and self.processes == 1:
            raise ValueError("`fsdp` shares a model out over several `processes`, and there is one: say how many")
        if self.fsdp and self.method in WHOLE:
            raise ValueError(f"`fsdp` goes with full and with adapters of the weights, and not with `{self.method}`")
        return self


class Rounding(Settings):
    """The grid that weights are rounded to while they learn; the same as in `compress`, or it is of no use."""

    block_size: Literal[16, 32, 64, 128] = Field(32, description="Weights that share one scale.")
    head: Literal["int4", "int8"] = Field("int8", description="int8 leaves the head and a tied embedding as they are.")


class OnPolicy(Settings):
    """Answers that the student writes itself while it learns, for the teacher to judge (Agarwal et al. 2024, GKD).

    Divergences with `logits: online`, `hidden` and `attention` learn from them; other terms go by given answers alone.
    """

    fraction: float = Field(
        0.5, ge=0, le=1, description="Share of the batches whose answers the student writes when their turn comes."
    )
    temperature: float = Field(1.0, gt=0, le=100, description="Of its sampling; 1 is its own distribution.")
    max_tokens: int | None = Field(
        None, ge=1, description="Of an answer of its own; null takes the task's `max_answer_tokens`."
    )


Callback = Annotated[CallbackSettings, BeforeValidator(lambda given: arguments_apart(given, CallbackSettings))]


class TrainSettings(Tuning):
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
    on_policy: OnPolicy | None = Field(
        None, description="The student writes some answers itself; null learns from given answers alone."
    )
    callbacks: list[Callback] = Field(
        default_factory=list,
        description="Classes of your own that are told of the student's training, may log numbers and may end it "
        "(docs/guides/distil.md).",
    )
    max_cut_off: Share = Field(
        0.5,
        description="Share of the teacher's answers that may be left out because they were cut off before their end.",
    )
    baseline: bool = Field(
        True,
        description="Also train the same student on the labelled rows alone; without a teacher, also measure the model "
        "as it comes.",
    )
    baseline_epochs: float = Field(8, gt=0, description="Passes of that baseline over the labelled rows.")

    general_text: bool | File = Field(
        True,
        description="Where a model is fine-tuned without a teacher: text whose perplexity is taken before and after, "
        "to tell what it forgets; plain text, or rows with a column `text`. true has the model as it comes write it, "
        "false asks nothing. A student with `head: tags` does not write, and is not asked.",
    )

    @model_validator(mode="after")
    def _objective_has_weight(self) -> TrainSettings:
        something_to_learn(self.objective)
        return self

    @model_validator(mode="after")
    def _callbacks_of_the_trainer(self) -> TrainSettings:
        if self.callbacks and self.backend == "olive":
            raise ValueError("`callbacks` are called by the trainer here, and `backend: olive` has its own")
        names = [callback.custom.partition(":")[2] for callback in self.callbacks]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"`callbacks`: two classes are called {twice[0]}, and their numbers would be one")
        return self

    @model_validator(mode="after")
    def _the_same_in_pieces(self) -> TrainSettings:
        in_pieces(self.accumulate == "auto", self.objective, normalise=self.normalise)
        return self

    @model_validator(mode="after")
    def _weights_of_ones_own(self) -> TrainSettings:
        if self.round_to_int4 is not None and self.method != "full":
            raise ValueError(
                f"`round_to_int4` moves the weights themselves, and `method: {self.method}` leaves them still"
            )
        return self
