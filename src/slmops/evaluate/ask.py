"""Asking a judge: a model on this machine, or an OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from slmops.data.read import read_jsonl
from slmops.endpoints.client import Client, Endpoint, Failure, key_of
from slmops.endpoints.retry import complete
from slmops.errors import SlmopsError
from slmops.privacy.audit import Gate
from slmops.progress import Progress, Silent
from slmops.tasks import Message

if TYPE_CHECKING:
    from slmops.engines import Engine
    from slmops.models.tokenizer import Tokenizer

TEMPERATURE = 0.7
"""Of answers that are drawn; without a seed the most likely words are taken."""

_RETRIES = 4
_TIMEOUT_S = 120.0


class Ask(Protocol):
    """Whoever can be asked."""

    def ask(self, prompts: Sequence[list[Message]], *, seed: int | None = None) -> list[str]:
        """The answers, in order; an empty text stands for a request that was refused or does not fit.

        Args:
            seed: draws each answer instead of taking the likeliest words.

        Raises:
            SlmopsError: nobody answers any more.
        """


@dataclass(frozen=True)
class AskLocal:
    """A model that an engine runs in this process."""

    engine: Engine
    tokenizer: Tokenizer
    max_tokens: int

    @classmethod
    def load(cls, engine: str, folder: Path, *, max_tokens: int, threads: int = 0) -> AskLocal:
        """The model in `folder`; raises what `load_engine` raises."""
        from slmops.engines import load_engine
        from slmops.models.tokenizer import Tokenizer

        return cls(load_engine(engine, folder, threads=threads), Tokenizer.load(folder), max_tokens)

    def ask(self, prompts: Sequence[list[Message]], *, seed: int | None = None) -> list[str]:
        from slmops.engines import Sampling

        sampling = Sampling(self.max_tokens, temperature=0.0 if seed is None else TEMPERATURE, seed=seed or 0)
        ids = [self.tokenizer.prompt(messages) for messages in prompts]
        fitting = [i for i, prompt in enumerate(ids) if len(prompt) < self.engine.info().context_tokens]
        written: list[list[int]] = [[] for _ in prompts]
        for token in self.engine.generate([ids[i] for i in fitting], sampling) if fitting else ():
            written[fitting[token.request]].append(token.id)
        return [self.tokenizer.decode(answer) for answer in written]


@dataclass(frozen=True)
class AskEndpoint:
    """An OpenAI-compatible endpoint. The key is read from the environment and goes nowhere else.

    Attributes:
        base_url: up to and without `/chat/completions`.
        key_env: the environment variable with the key; None sends a placeholder, as local servers want.
        concurrency: requests under way at a time.
        gate: see `Client`.
    """

    base_url: str
    model: str
    key_env: str | None
    max_tokens: int
    concurrency: int = 8
    gate: Gate | None = None

    def ask(self, prompts: Sequence[list[Message]], *, seed: int | None = None) -> list[str]:
        return asyncio.run(self._ask_all(prompts, seed))

    async def _ask_all(self, prompts: Sequence[list[Message]], seed: int | None) -> list[str]:
        endpoint = Endpoint(self.base_url, self.model, key_of(self.key_env, "the judge"))
        turn = asyncio.Semaphore(self.concurrency)
        connections = self.concurrency
        async with Client(endpoint, timeout_s=_TIMEOUT_S, connections=connections, gate=self.gate) as client:

            async def one(messages: list[Message]) -> str:
                async with turn:
                    return await self._ask_one(client, messages, seed)

            tasks = [asyncio.create_task(one(messages)) for messages in prompts]
            try:
                return list(await asyncio.gather(*tasks))
            finally:
                # One that failed for good ends the others: they would only fail, and cost, likewise.
                for task in tasks:
                    task.cancel()

    async def _ask_one(self, client: Client, messages: list[Message], seed: int | None) -> str:
        drawn: dict[str, Any] = {"temperature": 0.0} if seed is None else {"temperature": TEMPERATURE, "seed": seed}
        try:
            reply = await complete(client, messages, _RETRIES, max_tokens=self.max_tokens, **drawn)
        except Failure as failure:
            if failure.of_the_request:
                return ""
            hint = "check evaluate.judge (base_url, model, key_env)"
            raise SlmopsError(
                f"the judge {self.model} at {self.base_url} {failure}",
                hint=f"{failure.hint if failure.retryable else hint}; what it has said so far is kept",
            ) from None
        return reply.text


@dataclass
class Remembered:
    """Whoever is asked through this is asked nothing twice: answers are kept in a file, also over a kill.

    Attributes:
        inner: who is asked.
        path: JSONL file of the answers, by what was asked.
        at_once: prompts handed on together; their answers are kept before more are asked.
    """

    inner: Ask
    path: Path
    progress: Progress = field(default_factory=Silent)
    at_once: int = 32

    def ask(self, prompts: Sequence[list[Message]], *, seed: int | None = None) -> list[str]:
        keys = [_key(messages, seed) for messages in prompts]
        known = self._read()
        open_ = list({key: messages for key, messages in zip(keys, prompts, strict=True) if key not in known}.items())
        if not open_:
            return [known[key] for key in keys]
        with self.progress.task("judge", len(open_), "verdicts") as bar, self.path.open("a", encoding="utf-8") as file:
            for begin in range(0, len(open_), self.at_once):
                part = open_[begin : begin + self.at_once]
                answers = self.inner.ask([messages for _, messages in part], seed=seed)
                for (key, _), text in zip(part, answers, strict=True):
                    known[key] = text
                    file.write(json.dumps({"key": key, "text": text}) + "\n")
                file.flush()
                bar.advance(len(part))
        return [known[key] for key in keys]

    def _read(self) -> dict[str, str]:
        """What is known; a last line that a kill cut short is taken off."""
        if not self.path.exists():
            return {}
        content = self.path.read_bytes()
        if not content.endswith(b"\n"):
            self.path.write_bytes(content[: content.rfind(b"\n") + 1])
        return {record["key"]: record["text"] for record in read_jsonl(self.path)}


def _key(messages: list[Message], seed: int | None) -> str:
    return hashlib.sha256(json.dumps([messages, seed]).encode()).hexdigest()
