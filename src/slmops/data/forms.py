"""What a record says: its input and its answer, out of named columns or out of the forms that others write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slmops.errors import BadInput
from slmops.recipe.data import Column

_INPUT, _OUTPUT = "input", "output"


def in_form(record: dict[str, Any], instruction: str | None, place: str) -> dict[str, Any]:
    """A record with `input` and perhaps `output`, from `{"messages"}` or `{"prompt", "completion"}`; others as is.

    The last message is the answer where the assistant says it. A single message is its text, and so is one behind a
    system message that is the task's own `instruction`.

    Raises:
        BadInput: names the place of messages that are none.
    """
    if _INPUT in record:
        return record
    if "messages" in record:
        asked = _messages(record["messages"], f"{place}: `messages`")
        if answer := asked[-1] if asked[-1]["role"] == "assistant" else None:
            record = {_OUTPUT: answer["content"], **record}
        return {**record, _INPUT: _one_text(asked[:-1] if answer else asked, instruction)}
    if "prompt" in record:
        said = record.get("completion")
        if isinstance(said, list):
            said = _messages(said, f"{place}: `completion`")[-1]["content"]
        prompt = record["prompt"]
        if isinstance(prompt, list):
            prompt = _one_text(_messages(prompt, f"{place}: `prompt`"), instruction)
        return {**({} if said is None else {_OUTPUT: said}), **record, _INPUT: prompt}
    return record


def _messages(given: Any, place: str) -> list[dict[str, Any]]:
    listed = given if isinstance(given, list) else []
    if not listed or not all(isinstance(one, dict) and {"role", "content"} <= one.keys() for one in listed):
        raise BadInput(f'{place} must be a list of messages, {{"role": …, "content": text}} each')
    return listed


def _one_text(messages: list[dict[str, Any]], instruction: str | None) -> Any:
    """The text of the only message, or the messages."""
    if messages and messages[0] == {"role": "system", "content": instruction}:
        messages = messages[1:]
    alone = len(messages) == 1 and messages[0]["role"] == "user"
    return messages[0]["content"] if alone else messages


def cell(record: Mapping[str, Any], column: Column) -> Any:
    """What stands in a column, or in several as one object; None where nothing does.

    A dot leads into an object: `answers.text`. Columns of an object that are empty are left out of it.
    """
    if not isinstance(column, str):
        found = {name: cell(record, one) for name, one in column.items()}
        return {name: value for name, value in found.items() if value is not None} or None
    if column in record:
        return record[column]
    first, _, rest = column.partition(".")
    inner = record.get(first)
    return cell(inner, rest) if rest and isinstance(inner, Mapping) else None
