"""Asking a bundle: text in, answer of its task out. Nothing outside the folder is read."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from slmops.bundle.labels import label_probabilities
from slmops.bundle.manifest import MODEL, Adapter, Manifest
from slmops.engines import Engine, Sampling, adapted_engine, load_engine
from slmops.errors import BadInput
from slmops.models.tokenizer import Tokenizer
from slmops.tasks import Message, ParseFailure, Task, from_description


@dataclass(frozen=True)
class Prediction:
    """One answer.

    Attributes:
        answer: what the task reads out of `text`, or why it cannot be read.
        text: what the model wrote.
        tokens: how many it wrote, the end token included.
        latency_ms: from the call to this answer's last token; in a batch, requests wait for each other.
    """

    answer: Any | ParseFailure
    text: str
    tokens: int
    latency_ms: float

    @property
    def failure(self) -> str | None:
        """Why there is no answer, or None."""
        return self.answer.reason if isinstance(self.answer, ParseFailure) else None

    def plain(self) -> dict[str, Any]:
        """As plain JSON data; `answer` is null and `failure` says why where the text cannot be read."""
        answer = None if self.failure else self.answer
        shown = {"text": self.text, "tokens": self.tokens, "latency_ms": round(self.latency_ms, 3)}
        return {"answer": answer, "failure": self.failure, **shown}


@dataclass(frozen=True)
class Bundle:
    """A model on disk that knows its task. Its parts are loaded when they are first needed.

    Attributes:
        folder: where it lies.
        manifest: checked against the folder.
        threads: of the engine; 0 takes all cores.
        base: the bundle without an adapter; None where it is asked without one.
        adapter: the name of the adapter that it is asked with.
    """

    folder: Path
    manifest: Manifest
    threads: int = field(default=0, kw_only=True)
    base: Bundle | None = field(default=None, kw_only=True)
    adapter: str | None = field(default=None, kw_only=True)

    def adapted(self, name: str) -> Bundle:
        """The same bundle, asked with an adapter: its task, its settings, and what both have in common loaded once.

        Raises:
            BadInput: it has no adapter of that name.
        """
        if name not in self.manifest.adapters:
            known = ", ".join(self.manifest.adapters) or "none"
            raise BadInput(f"the bundle {self.manifest.name} has no adapter {name!r}", hint=f"it has: {known}")
        return replace(self, base=self.base or self, adapter=name)

    @property
    def asked(self) -> Manifest | Adapter:
        """What says how it is asked: the adapter's part of the manifest, or all of it."""
        return self.manifest.adapters[self.adapter] if self.adapter else self.manifest

    @cached_property
    def task(self) -> Task:
        return from_description(self.asked.task)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return self.base.tokenizer if self.base else Tokenizer.load(self.folder / MODEL)

    @cached_property
    def engine(self) -> Engine:
        if self.base and self.adapter:
            return adapted_engine(self.base.engine, self.folder / self.manifest.adapters[self.adapter].path)
        return load_engine(self.manifest.engine, self.folder / MODEL, threads=self.threads)

    @property
    def sampling(self) -> Sampling:
        """The bundle's own generation settings."""
        return Sampling(**self.asked.generation.model_dump())

    def predict(self, text: str) -> Prediction:
        """The answer to `text`.

        Raises:
            BadInput: the text does not fit into the model's context.
        """
        return self.predict_many([text])[0]

    def predict_many(self, texts: Sequence[str]) -> list[Prediction]:
        """The answers to `texts`, in their order, decoded in batches.

        Raises:
            BadInput: a text does not fit into the model's context.
        """
        begun = time.perf_counter()
        prompts = [self.tokenizer.prompt(self.task.render(text)) for text in texts]
        written: list[list[int]] = [[] for _ in texts]
        done_s = [0.0] * len(texts)
        for token in self.engine.generate(prompts, self.sampling):
            written[token.request].append(token.id)
            done_s[token.request] = time.perf_counter() - begun
        return [self._read(ids, seconds) for ids, seconds in zip(written, done_s, strict=True)]

    def probabilities(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """How likely each label of the task is as the answer to each of `texts`, calibrated where the bundle is.

        Raises:
            BadInput: the task has no labels, or a text does not fit into the model's context.
        """
        return label_probabilities(self.engine, self.tokenizer, self.task, texts, self.temperature)

    @property
    def temperature(self) -> float:
        """Of the probabilities of labels."""
        return self.asked.calibration.temperature if self.asked.calibration else 1.0

    def _read(self, ids: Sequence[int], seconds: float) -> Prediction:
        text = self.tokenizer.decode(ids)
        return Prediction(self.task.parse(text), text, len(ids), seconds * 1e3)

    def chat(self, messages: Sequence[Message]) -> Iterator[str]:
        """Pieces of the answer to `messages`, as they are written; together they are the whole text.

        Raises:
            BadInput: the messages do not fit into the model's context.
        """
        stream = self.tokenizer.stream()
        for token in self.engine.generate([self.tokenizer.prompt(messages)], self.sampling):
            if piece := stream.feed(token.id):
                yield piece
        if rest := stream.flush():
            yield rest
