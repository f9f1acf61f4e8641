"""Rows in the form in which Azure ML's distillation reads them: chats, of which the teacher writes the answers anew.

Source of the rules: `validate_pipeline.py` of the component `oss_distillation_pipeline`
(github.com/Azure/azureml-assets, assets/training/distillation), which refuses a whole file for one record that breaks
them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from slmops.errors import BadInput
from slmops.privacy.redaction import Redactor
from slmops.tasks import Message, Row, Task

CONVERSATION = "CONVERSATION"

TASK_TYPES: Mapping[str, str] = {
    "nli": "NLI",
    "qa": "NLU_QA",
    "maths": "MATH",
    "summarisation": "SUMMARIZATION",
    "conversation": CONVERSATION,
}
"""Kinds of task, and what Azure calls them; it has no other."""

_FEWEST = 65
_FEWEST_OF_MATHS = 40


@dataclass
class Chats:
    """The records of one file.

    Attributes:
        records: `{"messages": …}`: a system message, then the user and the assistant in turn.
        left_out: rows that Azure would refuse, by the reason.
        redacted: values that placeholders stand for, by their kind.
    """

    records: list[dict[str, list[Message]]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    redacted: Counter[str] = field(default_factory=Counter)


def chats_of(rows: Iterable[Row], task: Task, task_type: str, system: str | None, finder: Redactor | None) -> Chats:
    """The rows as Azure reads them.

    Answers are left out, since the teacher gives them. Only a conversation has to end with one: it is taken with the
    answer of its row, and left out where it has none.

    Args:
        system: what the teacher is told before the task's own instruction; the student reads it as well.
        finder: of what placeholders are to stand for; None leaves the texts as they are.

    Raises:
        BadInput: nothing could stand in the system message that Azure wants first.
    """
    made = Chats()
    for row in rows:
        asked = task.render(row["input"])
        own = [message["content"] for message in asked if message["role"] == "system"]
        first = "\n\n".join(filter(None, [system, *own]))
        if not first:
            raise BadInput(
                f"row {row['id']}: Azure wants a system message first, and this task has none",
                hint='give what is to be done as task.instruction: --set task.instruction="Answer in one sentence."',
            )
        turns = [message for message in asked if message["role"] != "system"]
        if task_type == CONVERSATION:
            if "output" not in row:
                made.left_out["conversations without an answer"] += 1
                continue
            turns.append({"role": "assistant", "content": task.write(row["output"])})
        if any(turn["role"] != ("user", "assistant")[at % 2] for at, turn in enumerate(turns)):
            made.left_out["conversations in which one side speaks twice"] += 1
            continue
        _take(made, [{"role": "system", "content": first}, *turns], finder)
    return made


def check_enough(chats: Chats, task_type: str, name: str) -> None:
    """Refuse what Azure would: too few records in a file.

    Raises:
        BadInput: says how many there are, and what was left out.
    """
    fewest = _FEWEST_OF_MATHS if task_type == "MATH" else _FEWEST
    found = len(chats.records)
    if found >= fewest:
        return
    left = "".join(f"; left out: {count} {reason}" for reason, count in chats.left_out.items())
    raise BadInput(
        f"{name} has {found} rows, and Azure takes {task_type} from {fewest} on{left}",
        hint="give more rows, or another share of them with --set data.split.validation=0.3",
    )


def _take(made: Chats, messages: list[Message], finder: Redactor | None) -> None:
    if finder:
        redaction = finder.redact([message["content"] for message in messages])
        made.redacted += redaction.counts
        messages = redaction.messages(messages)
    made.records.append({"messages": messages})
