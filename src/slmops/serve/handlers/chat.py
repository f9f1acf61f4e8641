"""`/v1/chat/completions`: the next message of a conversation."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from slmops.errors import BadInput
from slmops.serve.answers import Reply
from slmops.serve.api import ChatRequest
from slmops.serve.failures import bad
from slmops.serve.generation import Constraint
from slmops.serve.handlers.marking import marked
from slmops.serve.handlers.writing import Wanted, write
from slmops.serve.intake import Intake
from slmops.serve.served import Served


async def chat(intake: Intake, request: web.Request) -> web.StreamResponse:
    """Answer a conversation."""
    asked = await intake.body(request, ChatRequest)
    served = intake.model(asked.model)
    reply = Reply(asked.model, True, served.bundle.tokenizer, asked.top)
    if served.marker:
        wanted = Wanted(served, asked, reply, [], asked.max_completion_tokens)
        return await write(intake, request, marked(wanted, asked))
    if asked.tools and asked.tool_choice != "none":
        raise bad("this model was not trained to call tools", param="tools", code="unsupported")
    prompt = _prompt(served, [{"role": said.role, "content": said.text} for said in asked.messages])
    wanted = Wanted(served, asked, reply, [prompt], asked.max_completion_tokens, _constraint(served, asked))
    return await write(intake, request, wanted)


def _prompt(served: Served, messages: list[dict[str, str]]) -> list[int]:
    """The tokens of a conversation, with the instruction that the model was trained with in front."""
    instruction = served.bundle.manifest.task.get("instruction")
    if instruction and all(message["role"] != "system" for message in messages):
        messages = [{"role": "system", "content": instruction}, *messages]
    try:
        return served.prompt(messages)
    except BadInput as error:
        code = "context_length_exceeded" if "tokens" in str(error) else None
        raise bad(str(error), param="messages", code=code) from None


def _constraint(served: Served, asked: ChatRequest) -> Callable[[], Constraint] | None:
    wanted = asked.response_format
    if wanted is None or wanted.type == "text":
        return None
    schema = wanted.json_schema.schema_ if wanted.json_schema else None
    try:
        served.grammars.json(schema)
    except BadInput as error:
        raise bad(str(error), param="response_format") from None
    return lambda: served.grammars.json(schema)
