"""What a model does: one class per kind of task."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from slmops.recipe.settings import File, Settings


class ExtractionTask(Settings):
    """A text becomes a JSON object with the fields of a schema."""

    kind: Literal["extraction"] = Field("extraction", description="A JSON object is read out of a text.")
    json_schema: File = Field(alias="schema", description="JSON Schema of the answer: an object with flat properties.")
    label: str | None = Field(
        "intent", description="The property that is a class, judged as accuracy; null when there is none."
    )
    instruction: str | None = Field(None, description="System message sent with every request.")
    max_answer_tokens: int = Field(96, ge=1, description="An answer longer than this is cut and judged invalid.")


class ClassificationTask(Settings):
    """A text gets one label out of a closed set."""

    kind: Literal["classification"] = Field("classification", description="One label is given to a text.")
    labels: list[str] | None = Field(None, description="The closed set; taken from the training rows when absent.")
    instruction: str | None = Field(None, description="System message sent with every request.")
    max_answer_tokens: int = Field(24, ge=1, description="An answer longer than this is cut and judged invalid.")


class NliTask(Settings):
    """Does a hypothesis follow from a premise? An input is a text or `{"premise": text, "hypothesis": text}`."""

    kind: Literal["nli"] = Field("nli", description="One of three labels is given to two texts.")
    labels: list[str] = Field(
        ["entailment", "neutral", "contradiction"], min_length=2, description="The closed set of labels."
    )
    instruction: str | None = Field(
        "Does the hypothesis follow from the premise? Answer entailment, neutral or contradiction.",
        description="System message sent with every request.",
    )
    max_answer_tokens: int = Field(8, ge=1, description="An answer longer than this is cut and judged invalid.")


class QaTask(Settings):
    """A question gets a short answer. An input is a text or `{"question": text, "context": text}`.

    The context is optional. An output is a text or a list of texts of which any is right.
    """

    kind: Literal["qa"] = Field("qa", description="A question is answered in a few words.")
    instruction: str | None = Field(None, description="System message sent with every request.")
    max_answer_tokens: int = Field(32, ge=1, description="An answer longer than this is cut.")


class MathsTask(Settings):
    """A problem gets a solution that ends in a number.

    The number stands in `\\boxed{}`, behind `####`, or last in the text. An output is a number or such a text.
    """

    kind: Literal["maths"] = Field("maths", description="The final number counts, not the way there.")
    instruction: str | None = Field(None, description="System message sent with every request.")
    max_answer_tokens: int = Field(256, ge=1, description="An answer longer than this is cut, and its number missing.")


class SummarisationTask(Settings):
    """A text becomes a shorter one. An output is a text or a list of texts of which any is right."""

    kind: Literal["summarisation"] = Field("summarisation", description="A text is said in fewer words.")
    instruction: str | None = Field(None, description="System message sent with every request.")
    max_answer_tokens: int = Field(128, ge=1, description="An answer longer than this is cut.")


class GenerationTask(Settings):
    """A text is written. An output is a text or a list of texts of which any is right."""

    kind: Literal["generation"] = Field("generation", description="A free text is written.")
    instruction: str | None = Field(None, description="System message sent with every request.")
    max_answer_tokens: int = Field(256, ge=1, description="An answer longer than this is cut.")


class ConversationTask(Settings):
    """A conversation gets its next message. An input is a text or a list of messages, the user's last.

    A message is `{"role": "system", "user" or "assistant", "content": text}`. An output is a text or a list of texts of
    which any is right.
    """

    kind: Literal["conversation"] = Field("conversation", description="The last of several messages is answered.")
    instruction: str | None = Field(
        None, description="System message sent with every request that has none of its own."
    )
    max_answer_tokens: int = Field(256, ge=1, description="An answer longer than this is cut.")


TaskSettings = Annotated[
    ExtractionTask
    | ClassificationTask
    | NliTask
    | QaTask
    | MathsTask
    | SummarisationTask
    | GenerationTask
    | ConversationTask,
    Field(discriminator="kind"),
]
