"""`/v1/chat/completions`: the next message of a conversation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from aiohttp import web

from slmops.errors import BadInput
from slmops.serve.answers import Reply
from slmops.serve.api import ChatRequest, ToolChoice
from slmops.serve.calling import Calling
from slmops.serve.failures import bad
from slmops.serve.generation import Constraint
from slmops.serve.handlers.marking import marked
from slmops.serve.handlers.writing import Wanted, write
from slmops.serve.intake import Intake
from slmops.serve.served import Served
from slmops.serve.tools import as_rendered


async def chat(intake: Intake, request: web.Request) -> web.StreamResponse:
    """Answer a conversation."""
    asked = await intake.body(request, ChatRequest)
    served = intake.model(asked.model)
    reply = Reply(asked.model, True, served.bundle.tokenizer, asked.top)
    if served.marker:
        wanted = Wanted(served, asked, reply, [], asked.max_completion_tokens)
        return await write(intake, request, marked(wanted, asked))
    calling = _calling(served, asked)
    prompt, constraint = _prompt(served, asked), _constraint(served, asked)
    reply = replace(reply, calling=calling)
    return await write(intake, request, Wanted(served, asked, reply, [prompt], asked.max_completion_tokens, constraint))


def _calling(served: Served, asked: ChatRequest) -> Callable[[], Calling] | None:
    """Finds the calls of tools in an answer; None where it may call none."""
    form, names = served.tools, {tool.function.name for tool in asked.callable}
    if form is None and (names or any(said.tool_calls for said in asked.messages)):
        message = "this model was not trained to call tools: its chat template shows none"
        raise bad(message, param="tools" if names else "messages", code="unsupported")
    if isinstance(asked.tool_choice, ToolChoice) and asked.tool_choice.function.name not in names:
        raise bad("`tool_choice` names a function that is not among `tools`", param="tool_choice")
    if names and asked.response_format and asked.response_format.type != "text":
        raise bad("an answer that may call tools can have no `response_format` beside it", param="response_format")
    if form is None or not names:
        return None
    return partial(Calling, form, names, one=asked.parallel_tool_calls is False)


def _messages(served: Served, asked: ChatRequest) -> list[dict[str, Any]]:
    """The conversation as the template reads it, with the instruction that the model was trained with in front."""
    names = {call.id: call.function.name for said in asked.messages for call in said.tool_calls or ()}
    messages = []
    for number, said in enumerate(asked.messages):
        message = {"role": said.role, "content": said.text}
        message |= said.model_dump(include={"tool_calls", "tool_call_id"}, exclude_none=True)
        try:
            messages.append(as_rendered(message, names))
        except ValueError as error:
            raise bad(f"messages.{number}.tool_calls: {error}", param="messages") from None
    instruction = served.bundle.asked.task.get("instruction")
    if instruction and all(message["role"] != "system" for message in messages):
        return [{"role": "system", "content": instruction}, *messages]
    return messages


def _prompt(served: Served, asked: ChatRequest) -> list[int]:
    """The tokens of a conversation."""
    tools = [tool.model_dump(exclude_none=True) for tool in asked.callable] or None
    messages = _messages(served, asked)
    try:
        return served.prompt(messages, tools=tools)
    except BadInput as error:
        code = "context_length_exceeded" if "tokens" in str(error) else None
        raise bad(str(error), param="messages", code=code) from None


def _constraint(served: Served, asked: ChatRequest) -> Callable[[], Constraint] | None:
    """Makes the form that each answer is held to; None where it may have any."""
    try:
        make = _form(served, asked)
        if make:
            # Refused now, rather than by the first who writes.
            make()
    except BadInput as error:
        raise bad(str(error), param="tools" if asked.callable else "response_format") from None
    return make


def _form(served: Served, asked: ChatRequest) -> Callable[[], Constraint] | None:
    choice, tools = asked.tool_choice, [tool.model_dump() for tool in asked.callable]
    if served.tools and choice not in (None, "none", "auto"):
        if isinstance(choice, ToolChoice):
            tools = [tool for tool in tools if tool["function"]["name"] == choice.function.name]
        return partial(served.grammars.call, served.tools, tools)
    wanted = asked.response_format
    if wanted is None or wanted.type == "text":
        return None
    return partial(served.grammars.json, wanted.json_schema.schema_ if wanted.json_schema else None)
