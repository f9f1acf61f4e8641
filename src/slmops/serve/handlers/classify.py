"""`/v1/classify`: how likely each label of the task is, for one text or several."""

from __future__ import annotations

from aiohttp import web

from slmops.errors import BadInput
from slmops.serve.answers import labelled, usage
from slmops.serve.api import ClassifyRequest
from slmops.serve.asking import Chosen
from slmops.serve.failures import bad, ended_early
from slmops.serve.intake import CLIENT, Intake


async def classify(intake: Intake, request: web.Request) -> web.Response:
    """Weigh the labels."""
    asked = await intake.body(request, ClassifyRequest)
    served = intake.model(asked.model)
    if not served.labels:
        raise bad("this model gives open answers; ask /v1/chat/completions", code="unsupported", status=404)
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    try:
        prompts = [served.label_prompt(text) for text in texts]
    except BadInput as error:
        raise bad(str(error), param="input") from None
    deadline = intake.deadline()
    choices: list[Chosen] = []
    try:
        async with served.wearing(deadline) as worn:
            for prompt in prompts:
                choices.append(Chosen(served, prompt, client=request[CLIENT], deadline=deadline, worn=worn))
            found = [await choice.likelihoods() for choice in choices]
    finally:
        for choice in choices:
            choice.ticket.cancel()
    likelihoods = [one for one in found if not isinstance(one, str)]
    if failed := [one for one in found if isinstance(one, str)]:
        raise ended_early(failed[0])
    bundle, bound = served.bundle, asked.abstain_below
    told = [labelled(i, served.labels, one, bound, bundle.temperature) for i, one in enumerate(likelihoods)]
    read, known = sum(map(len, prompts)), sum(choice.ticket.known for choice in choices)
    calibration = bundle.asked.calibration
    fitted = {
        "calibrated": calibration is not None,
        "recommended_abstain_below": calibration.abstain_below if calibration else None,
    }
    named = {"object": "list", "model": asked.model, **fitted}
    return web.json_response({**named, "data": told, "usage": usage(read, known, 0)})
