"""A conversation gets its next message."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from slmops.tasks import strict_json
from slmops.tasks.base import Message, ParseFailure, Row, messages
from slmops.tasks.open_answer import Generation

_ROLES = ("system", "user", "assistant")
_SHAPE = '[{"role": "user", "content": text}, …] with the roles system, user and assistant, a message of the user last'


@dataclass(frozen=True)
class Conversation(Generation):
    """The task of answering the last of several messages."""

    kind: ClassVar[str] = "conversation"

    def render(self, text: str) -> list[Message]:
        """The messages that `text` holds; a system message of its own takes the place of the instruction."""
        held = turns(text)
        if held is None:
            return messages(self.instruction, text)
        own = held[0]["role"] == "system" or not self.instruction
        return held if own else [{"role": "system", "content": str(self.instruction)}, *held]

    def floor(self, train: Sequence[Row], texts: Sequence[str]) -> list[Any]:
        """The answer of the training row whose last message has the words most like those asked (TF-IDF)."""
        asked = [{**row, "input": last_message(row["input"])} for row in train]
        return super().floor(asked, [last_message(text) for text in texts])


def conversation(given: Any) -> str | ParseFailure:
    """The text of an input that is a list of messages, which is its JSON; a text stays as it is."""
    if isinstance(given, str):
        return given
    if not _is_conversation(given):
        return ParseFailure(f"it must be a text or {_SHAPE}")
    return json.dumps(given, ensure_ascii=False)


def turns(text: str) -> list[Message] | None:
    """The messages whose JSON `text` is; None for any other text."""
    if not text.startswith("[{"):
        return None
    try:
        held = strict_json.loads(text)
    except ValueError:
        return None
    return held if _is_conversation(held) else None


def _is_conversation(given: Any) -> bool:
    return isinstance(given, list) and all(map(_is_message, given)) and bool(given) and given[-1]["role"] == "user"


def _is_message(given: Any) -> bool:
    known = isinstance(given, dict) and given.keys() == {"role", "content"} and given["role"] in _ROLES
    return known and isinstance(given["content"], str) and bool(given["content"].strip())


def last_message(text: str) -> str:
    """What is to be answered: the last of the messages that `text` holds, or any other text as it is."""
    held = turns(text)
    return text if held is None else held[-1]["content"]
