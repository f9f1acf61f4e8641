"""The process that serves a bundle, with engines that go wrong in one way each.

They enter as every engine does: by a name in the registry, which a bundle's manifest asks for. The process is started
as the checklist starts its own; only the module is another.
"""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import time
from collections.abc import Iterator

import numpy as np

from slmops.engines import ENGINES
from slmops.engines.base import Prompts, Sampling, Token
from slmops.engines.onnxruntime import OnnxGenaiEngine
from slmops.errors import BadInput
from slmops.evaluate.checklist import serve
from slmops.models.tokenizer import Tokenizer

LEAK_BYTES = 4_000
TICKET = '{"intent":"refund","amount":"20 €"}'
_kept: list[bytes] = []


class Leaking(OnnxGenaiEngine):
    """Keeps a little of every request."""

    def generate(self, prompts: Prompts, sampling: Sampling, *, top_logits: int = 0) -> Iterator[Token]:
        _kept.append(os.urandom(LEAK_BYTES))
        return super().generate(prompts, sampling, top_logits=top_logits)


class Dying(OnnxGenaiEngine):
    """Takes its process with it where a prompt is long."""

    def generate(self, prompts: Prompts, sampling: Sampling, *, top_logits: int = 0) -> Iterator[Token]:
        if max(map(len, prompts)) > 60:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().generate(prompts, sampling, top_logits=top_logits)


class Raising(OnnxGenaiEngine):
    """Fails with an exception of its own where it should refuse cleanly."""

    def generate(self, prompts: Prompts, sampling: Sampling, *, top_logits: int = 0) -> Iterator[Token]:
        try:
            return super().generate(prompts, sampling, top_logits=top_logits)
        except BadInput as error:
            raise RuntimeError("a bug") from error


class Cutting(OnnxGenaiEngine):
    """Cuts what does not fit and says nothing."""

    def generate(self, prompts: Prompts, sampling: Sampling, *, top_logits: int = 0) -> Iterator[Token]:
        return super().generate([prompt[-40:] for prompt in prompts], sampling, top_logits=top_logits)


class Random(OnnxGenaiEngine):
    """Draws its tokens whatever it is told."""

    def generate(self, prompts: Prompts, sampling: Sampling, *, top_logits: int = 0) -> Iterator[Token]:
        hot = dataclasses.replace(sampling, temperature=5.0, seed=random.randrange(2**31))
        return super().generate(prompts, hot, top_logits=top_logits)


class Slow(OnnxGenaiEngine):
    """Takes a time that explodes with the prompt, for the first token and for every other."""

    def generate(self, prompts: Prompts, sampling: Sampling, *, top_logits: int = 0) -> Iterator[Token]:
        tokens = max(map(len, prompts))
        time.sleep((tokens / 80) ** 4)
        for number, token in enumerate(super().generate(prompts, sampling, top_logits=top_logits)):
            time.sleep((tokens / 250) ** 3 if number else 0)
            yield token


class Sure(OnnxGenaiEngine):
    """Believes whatever it writes, and always writes the same ticket."""

    def generate(
        self,
        prompts: Prompts,
        sampling: Sampling,  # noqa: ARG002 - a ticket is a ticket
        *,
        top_logits: int = 0,
    ) -> Iterator[Token]:
        self._ids = getattr(self, "_ids", None) or Tokenizer.load(self._folder).encode(TICKET)
        end = min(self._end_ids)
        for request in range(len(prompts)):
            for id in (*self._ids, end):
                top = np.array([id], dtype=np.int32), np.zeros(1, dtype=np.float32)
                yield Token(request, id, "stop" if id == end else None, top if top_logits else None)


for fault in (Leaking, Dying, Raising, Cutting, Random, Slow, Sure):
    ENGINES[f"faulty-{fault.__name__.lower()}"] = f"{__name__}:{fault.__name__}"

if __name__ == "__main__":
    serve.main()
