"""How a model that labels reads a message: the request as any model gets it, then the message once more.

A causal model sees only what stands before a token. When it comes to a token the second time, it has seen all of the
message (Springer et al. 2024, "Repetition improves language model embeddings"). One end token for each field with
options follows; the field's label is read off there and off all tokens before it (`TagHead.read`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slmops.errors import BadInput
from slmops.models.tokenizer import Tokenizer
from slmops.tasks import from_description
from slmops.tasks.classification import Classification
from slmops.tasks.extraction import Extraction
from slmops.tasks.marking import LABEL, OUTSIDE, Marking, Marks, Span

_MESSAGE = "\ufdd1"
"""Stands where the message does; Unicode has it stand for nothing, so no template holds it."""


@dataclass(frozen=True)
class Reading:
    """One request as tokens.

    Attributes:
        prompt: the request.
        again: the message and the end tokens behind it; these are labelled.
        message: its text.
        places: for each token of the message the characters of `message` that it stands for.
    """

    prompt: tuple[int, ...]
    again: tuple[int, ...]
    message: str
    places: tuple[tuple[int, int], ...]

    @property
    def ids(self) -> tuple[int, ...]:
        return (*self.prompt, *self.again)


def marking_of(task: Mapping[str, Any]) -> Marking:
    """The labels of a described task.

    Raises:
        BadInput: the task is open, or a property of its schema can be no label.
    """
    found = from_description(task)
    if isinstance(found, Classification):
        return Marking.of_labels(found.labels)
    if not isinstance(found, Extraction):
        raise BadInput(
            f"a model that labels reads fields or a label out of texts, and the task is {task['kind']}",
            hint="set student.head: language",
        )
    return Marking.of(found.schema)


def as_fields(answer: Any) -> Mapping[str, Any]:
    """An answer as fields that can be marked: a label is the option of its one field."""
    return answer if isinstance(answer, Mapping) else {LABEL: answer}


class Reader:
    """Requests of one extraction or classification to readings, labels to answers and back.

    Attributes:
        choices: the labels that an answer is one of; None where it has fields.

    Raises:
        BadInput: the task is open, its schema cannot be marked, or the chat template hides the message.
    """

    def __init__(self, task: Mapping[str, Any], tokenizer: Tokenizer) -> None:
        self.marking = marking_of(task)
        self.task, self.tokenizer = from_description(task), tokenizer
        self.choices = self.task.labels if isinstance(self.task, Classification) else None
        before, mark, self._after = tokenizer.render(self.task.render(_MESSAGE)).partition(_MESSAGE)
        if not mark:
            raise BadInput("the chat template changes the message, so it cannot be found in a request")
        self._before = before
        self._end = min(tokenizer.end_ids)

    def reading(self, prompt: Sequence[int]) -> Reading:
        """The reading of a request's tokens, as `Tokenizer.prompt` makes them.

        Raises:
            BadInput: it is no request of this task.
        """
        text: str = self.tokenizer.backend.decode(list(prompt), skip_special_tokens=False)
        if not (text.startswith(self._before) and text.endswith(self._after)):
            raise BadInput(
                "this model reads one message, and the request is no such message",
                hint="give it a message by itself: it holds no conversation and takes no other instruction",
            )
        message = text[len(self._before) : len(text) - len(self._after)]
        ids, places = self.tokenizer.encode_plain(message)
        ends = [self._end] * len(self.marking.options)
        return Reading(tuple(prompt), (*ids, *ends), message, tuple(places))

    def labels(self, reading: Reading, marks: Marks) -> tuple[int, ...]:
        """The label of each token in `reading.again`; a token belongs to the value that it shares a character with."""
        labels = [OUTSIDE] * len(reading.places)
        for span in marks.spans:
            inside = False
            for i, (start, end) in enumerate(reading.places):
                first, last = _bare(reading.message, start, end)
                if first < span.end and last > span.start:
                    labels[i] = self.marking.begin(span.field) + inside
                    inside = True
        chosen = [self.marking.first_option(name) + marks.options.get(name, 0) for name in self.marking.options]
        return (*labels, *chosen)

    def answer(self, reading: Reading, spans: Sequence[tuple[str, int, int]], options: Sequence[int]) -> str:
        """The answer's text, of values from token to behind token and the place of each option."""
        marked = []
        for field, first, last in spans:
            start, end = _bare(reading.message, reading.places[first][0], reading.places[last - 1][1])
            marked.append(Span(field, start, end))
        found = self.marking.read(reading.message, marked, dict(zip(self.marking.options, options, strict=True)))
        return self.task.write(found if self.choices is None else found[LABEL])


def _bare(text: str, start: int, end: int) -> tuple[int, int]:
    """The part of `text` without the blanks around it."""
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), end - len(part) + len(part.rstrip())
