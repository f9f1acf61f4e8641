"""`/v1/embeddings`: texts as vectors."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from aiohttp import web

from slmops.errors import BadInput
from slmops.serve.accounts import note_read
from slmops.serve.api import EmbeddingsRequest
from slmops.serve.embedding import OutOfTime
from slmops.serve.failures import bad, ended_early
from slmops.serve.intake import Intake
from slmops.serve.served import Served


async def embed(intake: Intake, request: web.Request) -> web.Response:
    """Embed texts."""
    asked = await intake.body(request, EmbeddingsRequest)
    served = intake.model(asked.model)
    if served.adapter is not None:
        message = f"vectors are made by the base alone: ask {intake.served.name}"
        raise bad(message, param="model", status=404, code="unsupported")
    if served.embedder is None:
        message = "this bundle gives no hidden states: ship it for onnxruntime-genai with this version of slmops"
        raise bad(message, status=404, code="unsupported")
    sequences = _sequences(served, asked.input)
    note_read(sum(map(len, sequences)))
    try:
        vectors = await served.embedder.embed(sequences, intake.deadline())
    except OutOfTime:
        raise ended_early("deadline") from None
    width = vectors.shape[1]
    if asked.dimensions not in (None, width):
        message = f"vectors of this model have {width} numbers, and were not trained to be cut"
        raise bad(message, param="dimensions", code="unsupported")
    shown = _base64 if asked.encoding_format == "base64" else _floats
    data = [{"object": "embedding", "index": i, "embedding": shown(one)} for i, one in enumerate(vectors)]
    read = sum(map(len, sequences))
    told = {"object": "list", "model": asked.model, "data": data}
    return web.json_response({**told, "usage": {"prompt_tokens": read, "total_tokens": read}})


def _sequences(served: Served, given: str | list[str] | list[int] | list[list[int]]) -> list[list[int]]:
    """The tokens of each text."""
    whole: list[Any] = [given] if isinstance(given, str) or isinstance(given[0], int) else list(given)
    tokenizer = served.bundle.tokenizer
    try:
        # What looks like a control token is text, as in a message.
        return [served.checked(tokenizer.encode_plain(one)[0] if isinstance(one, str) else one) for one in whole]
    except BadInput as error:
        code = "context_length_exceeded" if "tokens" in str(error) else None
        raise bad(str(error), param="input", code=code) from None


def _floats(vector: np.ndarray[Any, Any]) -> list[float]:
    return [float(one) for one in vector]


def _base64(vector: np.ndarray[Any, Any]) -> str:
    """Float32, the lowest byte first."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
