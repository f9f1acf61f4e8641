"""A bundle that answers requests: its tokenizer, its running batch, and what it is asked by default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from slmops.bundle.manifest import MODEL
from slmops.bundle.predict import Bundle
from slmops.bundle.read import open_bundle
from slmops.engines import load_running
from slmops.engines.decoding import check
from slmops.errors import BadInput
from slmops.serve.constraint import Grammars
from slmops.serve.metrics import Metrics
from slmops.serve.scheduler import Scheduler


class Served:
    """One model of a server.

    Attributes:
        name: by which requests ask for it.
        bundle: verified.
        metrics: of its scheduler.
        room: tokens of a prompt and its answer.
    """

    def __init__(self, folder: Path, *, slots: int, threads: int, queue: int) -> None:
        """Open the bundle in `folder`.

        Raises:
            BadInput: it cannot be trusted, or not be served.
        """
        self.bundle: Bundle = open_bundle(folder, threads=threads)
        self.name = self.bundle.manifest.name
        running = load_running(self.bundle.manifest.engine, folder / MODEL, slots=slots, threads=threads)
        self.room, self._vocabulary = running.room, running.vocabulary
        self.grammars = Grammars(self.bundle.tokenizer, running.vocabulary)
        self.metrics = Metrics(self.name)
        self.scheduler = Scheduler(running, self.metrics, queue=queue)

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
