"""One protocol for every runtime that can turn tokens into tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from slmops.errors import BadInput

Finish = Literal["stop", "length"]
Logits = npt.NDArray[np.float32]
Prompts = Sequence[Sequence[int]]
Top = tuple[npt.NDArray[np.int32], Logits]
"""Ids and log-probabilities of the k most likely tokens, most likely first: [k] each, or [n, k] for n places."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        max_tokens: tokens written at most, the end token included; at least 1.
        temperature: 0 takes the most likely token.
        top_p: share of probability mass that is drawn from, in (0, 1].
        seed: of the draws, at least 0; two calls with one seed write the same text.

    Raises:
        BadInput: a value is outside its range.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise BadInput(f"max_tokens must be at least 1, not {self.max_tokens}")
        if not 0 <= self.temperature < float("inf"):
            raise BadInput(f"temperature must be 0 or more, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise BadInput(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.seed < 0:
            raise BadInput(f"seed must be 0 or more, not {self.seed}")


@dataclass(frozen=True)
class Token:
    """One token of one answer, as it is written.

    Attributes:
        request: index of the prompt in the batch.
        id: the token.
        finish: set on a request's last token: `stop` at an end token, `length` at `max_tokens` or a full context.
        top: the k most likely tokens, when asked for.
    """

    request: int
    id: int
    finish: Finish | None = None
    top: Top | None = None


@dataclass(frozen=True)
class EngineInfo:
    """What runs.

    Attributes:
        engine, version: name in `ENGINES` and version of the runtime.
        precision: of the weights, e.g. `float32`, `int4`.
        weights_bytes: size on disk.
        parameters: weights; tied ones count once.
        context_tokens: prompt and answer together.
        threads: used by one forward pass.
        device: where it computes: `cpu` or `cuda`.
    """

    engine: str
    version: str
    precision: str
    weights_bytes: int
    parameters: int
    context_tokens: int
    threads: int
    device: str = "cpu"


class Engine(Protocol):
    """A loaded model, see `load_engine`. Instances are not safe for use by several threads at once."""

    def generate(self, prompts: Prompts, sampling: Sampling, *, top_logits: int = 0) -> Iterator[Token]:
        """Decode prompts in batches of similar length; tokens of one batch come interleaved, as they are written.

        A request's answer does not depend on the others in its batch, up to rounding in the last bits of a logit.

        Raises:
            BadInput: a prompt is empty, leaves no room in the context, or holds an id outside the vocabulary.
        """

    def score(self, prompts: Prompts, continuations: Prompts) -> list[Logits]:
        """Log-probability of each continuation token given what stands before it, one float32 array per request.

        Raises:
            BadInput: as `generate`, or a prompt with its continuation is longer than the context.
        """

    def score_top(self, prompts: Prompts, continuations: Prompts, *, top_logits: int) -> list[Top]:
        """The most likely tokens at each place of each continuation, which need not be among them.

        What `generate` gives with the tokens that it writes, up to rounding, for a text that is given.

        Args:
            top_logits: how many, at least 1.

        Raises:
            BadInput: as `score`.
        """

    def score_choices(self, prompts: Prompts, choices: Prompts) -> Logits:
        """Log-likelihood of each choice where nothing else may be written, float32 [prompts, choices].

        At each place a token has its share of what all tokens have that a choice goes on with there, so the
        likelihoods of all choices add up to 1. What prompts and choices have in common is run once where the runtime
        can share it. Choices that have less than a thousandth together may get other values, which together are that.

        Raises:
            BadInput: as `score`, there are no choices, one is empty, or one is what another begins with.
        """

    def info(self) -> EngineInfo: ...


@runtime_checkable
class Adaptable(Protocol):
    """An engine whose model can be run with an adapter."""

    def adapted(self, path: Path) -> Engine:
        """The same model with an adapter; this one goes on as it is.

        Args:
            path: of onnxruntime-genai a `.onnx_adapter` file, of transformers a folder of PEFT.

        Raises:
            BadInput: it cannot be read, or does not fit the model.
        """
