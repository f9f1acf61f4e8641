"""`/v1/chat/completions` of a model that marks: one message in, the JSON of its fields or its label out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from slmops.errors import BadInput
from slmops.serve.api import ChatRequest
from slmops.serve.failures import bad
from slmops.serve.generation import Deliver
from slmops.serve.handlers.writing import Wanted
from slmops.serve.marking import Marking
from slmops.tasks import Task


def marked(wanted: Wanted, asked: ChatRequest) -> Wanted:
    """`wanted`, answered by marks on the message.

    Raises:
        Failed: more is asked than the answer to one message.
    """
    served = wanted.served
    engine, bundle = served.marker, served.bundle
    if engine is None:
        raise TypeError("this model writes")
    for param in _refused(asked, bundle.task):
        message = f"this model reads one message and has one answer to it: it has no use for `{param}`"
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


def _refused(asked: ChatRequest, task: Task) -> Iterator[str]:
    """What of a request such a model cannot do; a temperature of 0 and a seed change nothing of its answer."""
    roles = [said.role for said in asked.messages]
    told = [said.text for said in asked.messages if said.role in ("system", "developer")]
    if roles[-1] != "user" or roles.count("user") + len(told) < len(roles) or roles.count("user") > 1:
        yield "messages"
    known = task.describe()
    if any(text != known["instruction"] for text in told):
        yield "messages"
    form = asked.response_format
    wanted = form.json_schema.schema_ if form and form.json_schema else None
    labels = form is not None and form.type != "text" and "schema" not in known
    if labels or wanted not in (None, known.get("schema")):
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
