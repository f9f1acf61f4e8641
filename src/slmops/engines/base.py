"""One protocol for every runtime that can turn tokens into tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        max_tokens: tokens written at most, the end token included.
        temperature: 0 takes the most likely token.
        top_p: share of probability mass that is drawn from.
        seed: of the draws; two calls with one seed write the same text.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Token:
    """One token of one answer, as it is written.

    Attributes:
        request: index of the prompt in the batch.
        id: the token.
        finish: set on a request's last token: `stop` at an end token, `length` at `max_tokens` or a full context.
        top: `(ids int32 [k], logits float32 [k])` of the k most likely tokens, when asked for.
    """

    request: int
    id: int
    finish: Finish | None = None
    top: tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]] | None = None


@dataclass(frozen=True)
class EngineInfo:
    """What runs: `engine` name and version, weights on disk in bytes, parameters, context length in tokens."""

    engine: str
    version: str
    precision: str
    weights_bytes: int
    parameters: int
    context_tokens: int
    threads: int


class Engine(Protocol):
    """A loaded model. Instances are not safe for use by several threads at once."""

    @classmethod
    def load(cls, folder: Path, *, threads: int = 0) -> Engine:
        """Load the model in `folder`; `threads` 0 takes all cores.

        Raises:
            BadInput: the folder does not hold a model of this engine, or the engine is not installed.
        """

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, top_logits: int = 0
    ) -> Iterator[Token]:
        """Decode all prompts together; tokens of the requests come interleaved, as they are written.

        Raises:
            BadInput: a prompt is empty or leaves no room in the context.
        """

    def score(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[npt.NDArray[np.float32]]:
        """Log-probability of each continuation token given what stands before it, one array per request."""

    def info(self) -> EngineInfo: ...
