"""`/v1/completions`: what follows on a text, or on tokens."""

from __future__ import annotations

from aiohttp import web

from slmops.errors import BadInput
from slmops.serve.answers import Reply
from slmops.serve.api import CompletionRequest
from slmops.serve.failures import bad
from slmops.serve.handlers.writing import Wanted, write
from slmops.serve.intake import Intake


async def complete(intake: Intake, request: web.Request) -> web.StreamResponse:
    """Go on with a text."""
    asked = await intake.body(request, CompletionRequest)
    served = intake.model(asked.model)
    if served.marker:
        raise bad("this model reads messages; ask /v1/chat/completions", code="unsupported", status=404)
    tokenizer = served.bundle.tokenizer
    given = [asked.prompt] if isinstance(asked.prompt, str) else asked.prompt
    of_tokens = bool(given) and isinstance(given[0], int)
    texts: list[list[int]] = [given] if of_tokens else [tokenizer.encode(text) for text in given]  # type: ignore[list-item,arg-type]
    try:
        prompts = [served.checked(text) for text in texts]
    except BadInput as error:
        raise bad(str(error), param="prompt") from None
    reply = Reply(asked.model, False, tokenizer, asked.logprobs)
    return await write(intake, request, Wanted(served, asked, reply, prompts))
