"""`/v1/chat/completions` of a model that marks: one message in, the JSON of its fields out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from slmops.errors import BadInput
from slmops.serve.api import ChatRequest
from slmops.serve.failures import bad
from slmops.serve.generation import Deliver
from slmops.serve.handlers.writing import Wanted
from slmops.serve.marking import Marking
from slmops.tasks.extraction import Extraction


def marked(wanted: Wanted, asked: ChatRequest) -> Wanted:
    """`wanted`, answered by marks on the message.

    Raises:
        Failed: more is asked than the fields of one message.
    """
    served = wanted.served
    engine, bundle = served.marker, served.bundle
    if engine is None or not isinstance(bundle.task, Extraction):
        raise TypeError("this model writes")
    for param in _refused(asked, bundle.task):
        message = f"this model reads the fields of one message and has one answer to it: it has no use for `{param}`"
        raise bad(message, param=param, code="unsupported")
    try:
        reading = engine.reading(bundle.tokenizer.prompt(bundle.task.render(asked.messages[-1].text)))
    except BadInput as error:
        code = "context_length_exceeded" if "tokens" in str(error) else None
        raise bad(str(error), param="messages", code=code) from None
    most = wanted.most or asked.max_tokens or bundle.manifest.generation.max_tokens

    def job(_prompt: list[int], _number: int, deliver: Deliver) -> Marking:
        return Marking(reading, most, deliver, engine, bundle.tokenizer, bundle.task)

    return replace(wanted, prompts=[list(reading.ids)], job=job)


def _refused(asked: ChatRequest, task: Extraction) -> Iterator[str]:
    """What of a request such a model cannot do; a temperature of 0 and a seed change nothing of its answer."""
    roles = [said.role for said in asked.messages]
    told = [said.text for said in asked.messages if said.role in ("system", "developer")]
    if roles[-1] != "user" or roles.count("user") + len(told) < len(roles) or roles.count("user") > 1:
        yield "messages"
    if any(text != task.instruction for text in told):
        yield "messages"
    form = asked.response_format
    if form and form.json_schema and form.json_schema.schema_ not in (None, task.schema):
        yield "response_format"
    given = {
        "temperature": asked.temperature,
        "top_p": (asked.top_p or 1) < 1,
        "n": (asked.n or 1) > 1,
        "stop": asked.stops,
        "logprobs": asked.logprobs,
        "tools": asked.tools and asked.tool_choice != "none",
    }
    yield from (param for param, one in given.items() if one)
