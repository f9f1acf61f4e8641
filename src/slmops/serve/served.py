"""A bundle that answers requests: its tokenizer, its running batch, and what it is asked by default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from slmops.bundle.labels import closed_set, label_tokens
from slmops.bundle.manifest import MODEL
from slmops.bundle.predict import Bundle
from slmops.bundle.read import open_bundle
from slmops.engines import load_running
from slmops.engines.choices import Node, tree
from slmops.engines.decoding import check
from slmops.errors import BadInput
from slmops.serve.constraint import Grammars
from slmops.serve.fastest import choose
from slmops.serve.metrics import Metrics
from slmops.serve.scheduler import Scheduler


class Served:
    """One model of a server.

    Attributes:
        name: by which requests ask for it.
        bundle: verified.
        engine: what runs it.
        metrics: of its scheduler.
        room: tokens of a prompt and its answer.
    """

    def __init__(
        self,
        folder: Path,
        *,
        slots: int,
        threads: int,
        queue: int,
        engine: str | None = None,
        streams: int = 1,
    ) -> None:
        """Open the bundle in `folder`.

        Args:
            engine, streams: which runtime is to serve it; see `slmops.serve.fastest.choose`.

        Raises:
            BadInput: it cannot be trusted, or not be served, or not by `engine`.
        """
        self.bundle: Bundle = open_bundle(folder, threads=threads)
        self.name = self.bundle.manifest.name
        self.engine = choose(self.bundle, engine, streams=min(streams, slots))
        running = load_running(self.engine, folder / MODEL, slots=slots, threads=threads)
        self.room, self._vocabulary = running.room, running.vocabulary
        self.grammars = Grammars(self.bundle.tokenizer, running.vocabulary)
        self.metrics = Metrics(self.name)
        self.scheduler = Scheduler(running, self.metrics, queue=queue)

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
            BadInput: they leave no room for the longest label.
        """
        prompt = self.bundle.tokenizer.prompt(self.bundle.task.render(text))
        deepest = max(len(node.path) for node in self.label_tree) + 1
        if len(prompt) + deepest > self.room:
            raise BadInput(f"the text has {len(prompt)} tokens, and the context {self.room} with a label")
        return self.checked(prompt)

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The tokens of a conversation.

        Raises:
            BadInput: they leave no room for an answer, or the chat template refuses the messages.
        """
        return self.checked(self.bundle.tokenizer.prompt(messages))

    def checked(self, prompt: Sequence[int]) -> list[int]:
        """A prompt that the model can take.

        Raises:
            BadInput: it is empty, leaves no room for an answer, or holds an id outside of the vocabulary.
        """
        if len(prompt) >= self.room:
            raise BadInput(f"the prompt has {len(prompt)} tokens, and the context {self.room} with the answer")
        check([prompt], vocabulary=self._vocabulary, context=self.room)
        return list(prompt)
