"""A bundle that answers requests: its tokenizer, its running batch, and what it is asked by default."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from slmops.bundle.labels import closed_set, label_tokens
from slmops.bundle.manifest import MODEL
from slmops.bundle.phrases import PHRASES, Phrases
from slmops.bundle.predict import Bundle
from slmops.bundle.read import open_bundle
from slmops.engines import load_running
from slmops.engines.choices import Node, tree
from slmops.engines.decoding import check
from slmops.engines.running import Adapting, Embedding
from slmops.engines.tagging import MOST_TOKENS
from slmops.engines.tagging_running import TaggingRunning
from slmops.errors import BadInput
from slmops.serve.checks import check_memory, check_runs
from slmops.serve.constraint import Grammars
from slmops.serve.embedding import Embedder
from slmops.serve.fastest import choose
from slmops.serve.guessing import Guesser
from slmops.serve.metrics import Metrics
from slmops.serve.residents import Residents
from slmops.serve.scheduler import Scheduler, Worn
from slmops.serve.tools import ToolForm, tool_form


class Served:
    """One model of a server.

    Attributes:
        name: by which requests ask for it.
        bundle: verified.
        engine: what runs it.
        metrics: of its scheduler.
        embedder: makes vectors of texts; None where the model gives no hidden states.
        marker: reads answers off what is run, where the model marks; None where it writes.
        room: tokens of a prompt and its answer.
        adapter: the name of the adapter that this is, a part of another one; None of the base.
        adapted: the same by the names of its adapters; of an adapter nothing.
    """

    adapter: str | None = None

    def __init__(
        self,
        folder: Path,
        *,
        slots: int,
        threads: int,
        queue: int,
        metrics: Metrics | None = None,
        engine: str | None = None,
        streams: int = 1,
        adapters: int = 4,
    ) -> None:
        """Open the bundle in `folder`, and run it once.

        Args:
            metrics: to go on with; new ones unless some are given.
            adapters: in memory at a time.
            engine, streams: which runtime is to serve it; see `slmops.serve.fastest.choose`.

        Raises:
            BadInput: it cannot be trusted, is too large for this machine, or cannot be served, or not by `engine`.
        """
        looked = open_bundle(folder, verify=False)
        # To read a file that is too large takes long, so that is found before its digest is.
        check_memory(folder, adapters=bool(looked.manifest.adapters))
        self.bundle: Bundle = open_bundle(folder, threads=threads)
        self.name = self.bundle.manifest.name
        self.engine = choose(self.bundle, engine, streams=min(streams, slots))
        running = load_running(self.engine, folder / MODEL, slots=slots, threads=threads)
        self.room, self._vocabulary = running.room, running.vocabulary
        check_runs(running, self.bundle.tokenizer.prompt(self.bundle.task.render(".")), folder)
        self.marker = running.engine if isinstance(running, TaggingRunning) else None
        self._guess_tokens = running.guess_tokens
        self.grammars = Grammars(self.bundle.tokenizer, running.vocabulary)
        self.embedder = Embedder(running, queue=queue) if isinstance(running, Embedding) and running.embeds else None
        self.metrics = metrics or Metrics(self.name)
        alone = MOST_TOKENS if self.marker else None
        self.scheduler = Scheduler(running, self.metrics, queue=queue, alone=alone)
        parts = self.bundle.manifest.adapters
        self.adapted: dict[str, Served] = {}
        self._residents: Residents | None = None
        if parts and isinstance(running, Adapting):
            paths = {name: folder / part.path for name, part in parts.items()}
            self._residents = Residents(running, paths, self.metrics, most=adapters, queue=queue)
            self.adapted = {name: self._with(name) for name in parts}

    def _with(self, adapter: str) -> Served:
        """The same as it is asked with an adapter: another task, in the same batch."""
        served = copy.copy(self)
        served.name, served.adapter = f"{self.name}:{adapter}", adapter
        served.bundle, served.adapted = self.bundle.adapted(adapter), {}
        return served

    @asynccontextmanager
    async def wearing(self, deadline: float) -> AsyncIterator[Worn | None]:
        """The adapter, in memory within; None of the base.

        Raises:
            Refused: see `Residents.wearing`.
            Failed: likewise.
        """
        if self.adapter is None or self._residents is None:
            yield None
            return
        async with self._residents.wearing(self.adapter, deadline) as worn:
            yield worn

    @cached_property
    def tools(self) -> ToolForm | None:
        """How the model calls tools; None where its chat template knows of none."""
        return tool_form(self.bundle.tokenizer)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """That an answer is one of; none where answers are open."""
        return closed_set(self.bundle.task) or ()

    @cached_property
    def label_tree(self) -> list[Node]:
        return tree(label_tokens(self.bundle.tokenizer, self.bundle.task, self.labels))

    def label_prompt(self, text: str) -> list[int]:
        """The tokens that ask for a label of `text`.

        Raises:
            BadInput: they leave no room for the longest label or, of a model that marks, for the message once more.
        """
        prompt = self.bundle.tokenizer.prompt(self.bundle.task.render(text))
        if self.marker:
            self.marker.reading(prompt)
            return prompt
        deepest = max(len(node.path) for node in self.label_tree) + 1
        if len(prompt) + deepest > self.room:
            raise BadInput(f"the text has {len(prompt)} tokens, and the context {self.room} with a label")
        return self.checked(prompt)

    @cached_property
    def _phrases(self) -> Phrases:
        """What its answers commonly say; nothing of a bundle that does not tell."""
        path = self.bundle.folder / PHRASES
        # They are of the base's task.
        known = PHRASES in self.bundle.manifest.files and self.adapter is None
        return Phrases.load(path, vocabulary=self._vocabulary) if known else Phrases({})

    def guesser(self, prompt: Sequence[int]) -> Guesser | None:
        """Of an answer to `prompt`; None where guesses are not worth running."""
        return Guesser(self._phrases, prompt, self._guess_tokens) if self._guess_tokens else None

    def prompt(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]:
        """The tokens of a conversation in which `tools` may be called.

        Raises:
            BadInput: they leave no room for an answer, or the chat template refuses the messages.
        """
        return self.checked(self.bundle.tokenizer.prompt(messages, tools=tools))

    def checked(self, prompt: Sequence[int]) -> list[int]:
        """A prompt that the model can take.

        Raises:
            BadInput: it is empty, leaves no room for an answer, or holds an id outside of the vocabulary.
        """
        if len(prompt) >= self.room:
            raise BadInput(f"the prompt has {len(prompt)} tokens, and the context {self.room} with the answer")
        check([prompt], vocabulary=self._vocabulary, context=self.room)
        return list(prompt)
