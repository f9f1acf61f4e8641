"""Asking a judge: a model on this machine, or an OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from slmops.data.read import read_jsonl
from slmops.errors import BadInput, SlmopsError
from slmops.progress import Progress, Silent
from slmops.tasks import Message

if TYPE_CHECKING:
    from openai import AsyncOpenAI

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


def key_of(variable: str | None) -> str:
    """The judge's key, out of an environment variable; a placeholder, as local servers want one, for None.

    Raises:
        BadInput: the environment does not have it.
    """
    if variable is None:
        return "none"
    if not (key := os.environ.get(variable)):
        raise BadInput(f"the judge's key is missing: ${variable} is not set", hint=f"export {variable}=…")
    return key


@dataclass(frozen=True)
class AskEndpoint:
    """An OpenAI-compatible endpoint. The key is read from the environment and goes nowhere else.

    Attributes:
        base_url: up to and without `/chat/completions`.
        key_env: the environment variable with the key; None sends a placeholder, as local servers want.
        concurrency: requests under way at a time.
    """

    base_url: str
    model: str
    key_env: str | None
    max_tokens: int
    concurrency: int = 8

    def ask(self, prompts: Sequence[list[Message]], *, seed: int | None = None) -> list[str]:
        return asyncio.run(self._ask_all(prompts, seed))

    async def _ask_all(self, prompts: Sequence[list[Message]], seed: int | None) -> list[str]:
        from openai import AsyncOpenAI

        turn = asyncio.Semaphore(self.concurrency)
        async with AsyncOpenAI(
            base_url=self.base_url, api_key=key_of(self.key_env), max_retries=_RETRIES, timeout=_TIMEOUT_S
        ) as client:

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

    async def _ask_one(self, client: AsyncOpenAI, messages: list[Message], seed: int | None) -> str:
        import openai

        drawn: dict[str, Any] = {"temperature": 0.0} if seed is None else {"temperature": TEMPERATURE, "seed": seed}
        given: Any = messages
        try:
            answer = await client.chat.completions.create(
                model=self.model, messages=given, max_tokens=self.max_tokens, **drawn
            )
        except (openai.BadRequestError, openai.UnprocessableEntityError):
            return ""
        except openai.APIStatusError as error:
            raise SlmopsError(
                f"the judge {self.model} at {self.base_url} answers {error.status_code}: {error.message[:200]}",
                hint="check evaluate.judge (base_url, model, key_env); what it has said so far is kept",
            ) from error
        except openai.APIError as error:
            raise SlmopsError(
                f"the judge {self.model} at {self.base_url} cannot be reached: {error}",
                hint="run the same command again: what it has said so far is kept",
            ) from error
        except json.JSONDecodeError:
            raise self._no_endpoint() from None
        # The SDK hands on whatever an endpoint sends with status 200, a web page for one.
        choices = getattr(answer, "choices", None)
        if choices is None:
            raise self._no_endpoint()
        return (choices[0].message.content or "") if choices else ""

    def _no_endpoint(self) -> SlmopsError:
        return SlmopsError(
            f"{self.base_url} does not answer as OpenAI's API does",
            hint="check evaluate.judge.base_url: it is what stands before /chat/completions",
        )


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
