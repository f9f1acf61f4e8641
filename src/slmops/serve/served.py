"""A bundle that answers requests: its tokenizer, its running batch, and what it is asked by default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from slmops.engines.running import Embedding
from slmops.engines.tagging import MOST_TOKENS
from slmops.engines.tagging_running import TaggingRunning
from slmops.errors import BadInput
from slmops.serve.checks import check_memory, check_runs
from slmops.serve.constraint import Grammars
from slmops.serve.embedding import Embedder
from slmops.serve.fastest import choose
from slmops.serve.guessing import Guesser
from slmops.serve.metrics import Metrics
from slmops.serve.scheduler import Scheduler
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
    """

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
    ) -> None:
        """Open the bundle in `folder`, and run it once.

        Args:
            metrics: to go on with; new ones unless some are given.
            engine, streams: which runtime is to serve it; see `slmops.serve.fastest.choose`.

        Raises:
            BadInput: it cannot be trusted, is too large for this machine, or cannot be served, or not by `engine`.
        """
        open_bundle(folder, verify=False)
        # To read a file that is too large takes long, so that is found before its digest is.
        check_memory(folder)
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
        known = PHRASES in self.bundle.manifest.files
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
