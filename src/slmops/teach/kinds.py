"""What a teacher must be told of each kind of task to write texts for it, and which texts can be used."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from slmops.tasks import Classification, Extraction, ParseFailure, Task, input_reader
from slmops.tasks.conversation import turns

Fault = Callable[[str, Task], str | None]
"""Why a text cannot be asked about, or None."""


@dataclass(frozen=True)
class Kind:
    """How texts of one kind of task are asked for.

    Attributes:
        about: what is done with a text: "Texts of customers are sorted by their label."
        item: of the list, in the plural.
        harder, easier: what makes a text so.
        show: an input as the JSON value that is asked for.
        fault: what is wrong with a text that has the right form.
    """

    about: str
    item: str
    harder: str
    easier: str
    show: Callable[[str], Any] = str
    fault: Fault = lambda _text, _task: None


def _parts(*names: str) -> Callable[[str], Any]:
    """The parts of an input that was put together out of them; the text itself where it was not."""
    form = re.compile("\n".join(rf"{name.capitalize()}: (?P<{name}>.+?)" for name in names), re.DOTALL)

    def show(text: str) -> Any:
        match = form.fullmatch(text)
        return match.groupdict() if match else text

    return show


def _an_answer(text: str, task: Task) -> str | None:
    return None if isinstance(task.parse(text), ParseFailure) else "it is an answer, not a text"


def _not_two_texts(text: str, task: Task) -> str | None:
    if not isinstance(_parts("premise", "hypothesis")(text), dict):
        return "it has not both a premise and a hypothesis"
    return _an_answer(text, task)


def _solved(text: str, _task: Task) -> str | None:
    return "it holds its own solution" if "####" in text or r"\boxed" in text else None


def _talk(text: str) -> Any:
    return turns(text) or text


def _broken_talk(text: str, _task: Task) -> str | None:
    return "it looks like messages and is none" if text.lstrip().startswith(("[", "{")) and not turns(text) else None


WRITING: Mapping[str, Kind] = {
    "classification": Kind(
        "Each text gets one label out of a closed set.",
        "strings",
        "its label follows from what is meant, not from a word that gives it away, and something beside it misleads",
        "it says plainly what its label is about",
        fault=_an_answer,
    ),
    "nli": Kind(
        "For a premise and a hypothesis it is told whether the hypothesis follows.",
        'objects {"premise": text, "hypothesis": text}',
        "telling takes a further step of thought, or a detail of the premise that is easily read over",
        "one sentence of the premise decides",
        show=_parts("premise", "hypothesis"),
        fault=_not_two_texts,
    ),
    "qa": Kind(
        "Each question gets an answer of a few words.",
        'strings, or objects {"question": text, "context": text} where those shown have a context, in which the answer '
        "must then stand",
        "two facts must be put together to answer it",
        "one fact answers it, and it is asked in the words of that fact",
        show=_parts("context", "question"),
    ),
    "maths": Kind(
        "Each problem is solved, and its answer is one number.",
        "strings, without solutions",
        "it takes a step more to solve, or has a figure that is not needed",
        "it takes a step less to solve, with small whole numbers",
        fault=_solved,
    ),
    "summarisation": Kind(
        "Each text is summarised in fewer words.",
        "strings, without summaries",
        "its main points are spread over it, among things that matter less",
        "it is shorter and says its main point first",
    ),
    "extraction": Kind(
        "The fields of a form are read out of each text.",
        "strings, without the form",
        "its values are said in passing and in unusual words, and some are missing",
        "it says each value plainly and one after the other",
        fault=_an_answer,
    ),
    "conversation": Kind(
        "The last message of a talk between user and assistant is answered.",
        'strings, which are a message of the user each, or lists of messages {"role": "user" or "assistant", '
        '"content": text} with a message of the user last',
        "the last message wants more than one thing, or leaves unsaid what was said before",
        "the last message wants one thing and says it plainly",
        show=_talk,
        fault=_broken_talk,
    ),
    "generation": Kind(
        "Each text asks for something to be written.",
        "strings, which are requests and not what they ask for",
        "it sets more conditions at once",
        "it sets one condition",
    ),
}


def form_of(task: Task) -> str:
    """What must be known of the answers of `task` to write texts that have some: its labels, or its fields."""
    if isinstance(task, Classification):
        return f"The labels are: {', '.join(task.labels)}."
    if isinstance(task, Extraction):
        return f"The fields are: {', '.join(task.schema['properties'])}."
    return ""


def text_of(item: Any, task: Task) -> str | ParseFailure:
    """The text that a member of a teacher's list stands for, or why it is none.

    Some teachers wrap it as `{"text": …}`, perhaps with a label of their own beside it, which is not read.
    """
    kind = task.describe()["kind"]
    text = input_reader(kind)(item)
    if isinstance(text, ParseFailure) and isinstance(item, dict) and "text" in item:
        text = input_reader(kind)(item["text"])
    if isinstance(text, ParseFailure):
        return text
    if not text.strip():
        return ParseFailure("it is empty")
    fault = WRITING[kind].fault(text, task)
    return text.strip() if fault is None else ParseFailure(fault)
