"""Jobs of a model that labels: one run says the fields of a message, or how likely each label of it is."""

from __future__ import annotations

import json
from collections.abc import Sequence

from slmops.engines.base import Logits
from slmops.engines.reading import Reading
from slmops.engines.tagging import TaggingEngine
from slmops.models.tokenizer import Tokenizer
from slmops.serve.choosing import Found
from slmops.serve.generation import Deliver, Piece
from slmops.serve.job import Ended, Move
from slmops.tasks import Task


class Marking:
    """The answer to one message; see `slmops.serve.job.Job`."""

    def __init__(
        self, reading: Reading, most: int, deliver: Deliver, engine: TaggingEngine, tokenizer: Tokenizer, task: Task
    ) -> None:
        """
        Args:
            reading: by `TaggingEngine.reading`.
            most: tokens of the answer; what is longer is cut.
        """
        self.prompt: Sequence[int] = reading.ids
        self.written = 0
        self._reading, self._most, self._deliver = reading, most, deliver
        self._engine, self._tokenizer, self._task = engine, tokenizer, task

    def go_on(self, logits: Logits) -> Move | Ended:
        """See `Job.go_on`; `logits` are the states that `TaggingRunning` found."""
        text = self._engine.read(self._reading, logits)
        answer = self._task.parse(text)
        if isinstance(answer, dict):
            # As it is told to people: what a model writes has blanks that are there for tokenizers.
            text = json.dumps(answer, ensure_ascii=False)
        ids = self._tokenizer.encode(text)
        self.written = min(len(ids) + 1, self._most)
        ended: Ended = "stop" if self.written > len(ids) else "length"
        self._deliver(Piece(text if ended == "stop" else self._tokenizer.decode(ids[: self._most]), ended=ended))
        return ended

    def stop(self, ended: Ended) -> None:
        """See `Job.stop`."""
        self._deliver(Piece("", ended=ended))


class Weighing:
    """How likely each label is of one message; see `slmops.serve.job.Job`."""

    def __init__(self, reading: Reading, engine: TaggingEngine, found: Found) -> None:
        """`reading` is by `TaggingEngine.reading`."""
        self.prompt: Sequence[int] = reading.ids
        self.written = 0
        self._reading, self._engine, self._found = reading, engine, found

    def go_on(self, logits: Logits) -> Move | Ended:
        """See `Job.go_on`; `logits` are the states that `TaggingRunning` found."""
        self._found(self._engine.weigh(self._reading, logits))
        return "stop"

    def stop(self, ended: Ended) -> None:
        """See `Job.stop`."""
        self._found(ended)
