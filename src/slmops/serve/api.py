"""What a request may say, in OpenAI's words; everything else is refused by name rather than overlooked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_ANSWERS = 16
MOST_STOPS = 4
MOST_TOP = 20
MOST_MESSAGES = 4096

Text = Annotated[str, Field(max_length=4_000_000)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TextPart(Part):
    """A part of a message."""

    type: Literal["text"]
    text: Text


class CalledFunction(Part):
    """What was called, with arguments as JSON text."""

    name: str = Field(max_length=64)
    arguments: Text


class ToolCall(Part):
    """A call that the model asked for."""

    id: str = Field(max_length=256)
    type: Literal["function"]
    function: CalledFunction


class Said(Part):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[TextPart] | None = None
    name: str | None = Field(None, max_length=256)
    tool_calls: Annotated[list[ToolCall], Field(max_length=128)] | None = None
    tool_call_id: str | None = Field(None, max_length=256)
    refusal: None = None

    @property
    def text(self) -> str:
        """Its content as one text."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class JsonSchema(Part):
    """A schema with its name."""

    name: str = Field(max_length=256)
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Part):
    """What form the answer has."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _with_its_schema(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("`json_schema` goes with `type: json_schema`")
        return self


class Function(Part):
    """What a tool does."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Part):
    """Something that the model may ask to be called."""

    type: Literal["function"]
    function: Function


class FunctionName(Part):
    """One of the functions that are given."""

    name: str


class ToolChoice(Part):
    """The tool that is to be called."""

    type: Literal["function"]
    function: FunctionName


class StreamOptions(Part):
    """What else comes with a stream."""

    include_usage: bool = False
    include_obfuscation: bool | None = None


Stop = Annotated[str, Field(min_length=1, max_length=256)]


class Generating(Part):
    """What requests for text have in common."""

    model: str = Field(max_length=256)
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False, strict=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, strict=False)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, max_length=256)
    presence_penalty: Annotated[float, Field(ge=0, le=0, strict=False)] | None = Field(None, description="0 alone.")
    frequency_penalty: Annotated[float, Field(ge=0, le=0, strict=False)] | None = Field(None, description="0 alone.")
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = Field(None, description="Empty alone.")

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> Generating:
        if self.stream_options and not self.stream:
            raise ValueError("`stream_options` goes with `stream: true`")
        return self


class ChatRequest(Generating):
    """The body of `/v1/chat/completions`."""

    messages: list[Said] = Field(min_length=1, max_length=MOST_MESSAGES)
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("`top_logprobs` goes with `logprobs: true`")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("give `max_completion_tokens` or `max_tokens`, not both")
        if self.tool_choice not in (None, "none", "auto") and not self.tools:
            raise ValueError("`tool_choice` goes with `tools`")
        return self

    @property
    def callable(self) -> list[Tool]:
        """The tools that the answer may call."""
        return [] if self.tool_choice == "none" else self.tools or []

    @property
    def top(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(Generating):
    """The body of `/v1/completions`."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=64)] | list[int]
    logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None
    echo: Literal[False] | None = None
    suffix: None = None
    best_of: Literal[1] | None = None


class ClassifyRequest(Part):
    """The body of `/v1/classify`."""

    model: str = Field(max_length=256)
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=256)]
    abstain_below: Annotated[float, Field(ge=0, le=1, strict=False)] | None = Field(
        None, description="Give no label where the most likely one is less likely than this."
    )


class EmbeddingsRequest(Part):
    """The body of `/v1/embeddings`."""

    model: str = Field(max_length=256)
    input: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=256)]
        | Annotated[list[int], Field(min_length=1)]
        | Annotated[list[Annotated[list[int], Field(min_length=1)]], Field(min_length=1, max_length=256)]
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = Field(None, description="That of the model alone.")
    user: str | None = Field(None, max_length=256)


class Problem(Part):
    """What went wrong."""

    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: str | None
    code: str | None


class ErrorReply(Part):
    """What is answered where there is no answer."""

    error: Problem
