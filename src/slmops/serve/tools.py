"""How a model calls tools: in the form that its chat template writes calls in, whatever that is called.

Families write the same in other words: Qwen and Hermes `<tool_call>{"name": …, "arguments": …}</tool_call>`, Llama 3
`{"name": …, "parameters": …}` alone. The template is asked to write a call, and what it writes is the form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slmops.errors import BadInput
from slmops.models.tokenizer import Tokenizer

Json = dict[str, Any]

_NAME, _VALUE = "qtoolname", "qtoolvalue"
_ASKED = {"role": "user", "content": "question"}
_CALLED = {"name": _NAME, "arguments": {"a": _VALUE}}
_TOOL = {"type": "function", "function": {"name": _NAME, "description": "d", "parameters": {"type": "object"}}}


@dataclass(frozen=True)
class ToolForm:
    """A call as a model writes it.

    Attributes:
        opening: what stands before its JSON object; may be empty.
        closing: what stands behind it.
        arguments: key of the arguments beside `name`.
    """

    opening: str
    closing: str
    arguments: str

    @property
    def mark(self) -> str:
        """What tells a call from other text; empty where the JSON object alone does."""
        return self.opening.strip()

    def schema(self, tools: Sequence[Mapping[str, Any]]) -> Json:
        """What the JSON object of a call of any of `tools` may be."""
        return {"anyOf": [self._of(tool["function"], f"#/anyOf/{n}") for n, tool in enumerate(tools)]}

    def _of(self, function: Mapping[str, Any], place: str) -> Json:
        arguments = function.get("parameters") or {"type": "object", "properties": {}, "additionalProperties": False}
        arguments = _moved(arguments, f"{place}/properties/{self.arguments}")
        named = {"name": {"const": function["name"]}, self.arguments: arguments}
        return {"type": "object", "properties": named, "required": list(named), "additionalProperties": False}


def _moved(schema: Any, place: str) -> Any:
    """A schema that now stands at `place` of another one, with its references."""
    if isinstance(schema, list):
        return [_moved(one, place) for one in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved(one, place) for key, one in schema.items()}
    if isinstance(reference := schema.get("$ref"), str) and reference.startswith("#"):
        moved["$ref"] = place + reference[1:]
    return moved


def tool_form(tokenizer: Tokenizer) -> ToolForm | None:
    """The form of a tokenizer's chat template; None where it shows no tools, or writes calls in no such form."""
    call = {"type": "function", "id": "call00000", "function": _CALLED}
    answer = {"role": "assistant", "content": "", "tool_calls": [call]}
    try:
        prompt = tokenizer.render([_ASKED], tools=[_TOOL])
        told = tokenizer.render([_ASKED, answer], tools=[_TOOL])
    except BadInput:
        return None
    if _NAME not in prompt:
        return None
    pairs = enumerate(zip(prompt, told, strict=False))
    same = next((place for place, (one, other) in pairs if one != other), min(len(prompt), len(told)))
    return _read(told[same:], tokenizer)


def _read(text: str, tokenizer: Tokenizer) -> ToolForm | None:
    """The form of the call that `text` begins with."""
    for at in (place for place, letter in enumerate(text) if letter == "{"):
        try:
            found, end = json.JSONDecoder().raw_decode(text, at)
        except ValueError:
            continue
        key = next((key for key in ("arguments", "parameters") if found.get(key) == _CALLED["arguments"]), None)
        if found.get("name") != _NAME or key is None:
            return None
        opening, closing = text[:at], _turn(text[end:], tokenizer)
        if any(token in opening + closing for token in tokenizer.control_tokens):
            # It would not come out as text.
            return None
        return ToolForm(opening, closing, key)
    return None


def _turn(text: str, tokenizer: Tokenizer) -> str:
    """What of `text` stands before the end of the assistant's turn."""
    ends = [str(tokenizer.backend.id_to_token(id)) for id in tokenizer.end_ids]
    return min((text.partition(end)[0] for end in ends), key=len)


def as_rendered(message: Mapping[str, Any], names: Mapping[str, str]) -> Json:
    """A message with calls or the result of one, as chat templates read it: arguments are objects.

    Args:
        names: the tool of each call, by the call's id.

    Raises:
        ValueError: the arguments of a call are no JSON object.
    """
    told = dict(message)
    if calls := told.get("tool_calls"):
        told["tool_calls"] = [_call_as_rendered(call) for call in calls]
    if name := names.get(told.get("tool_call_id") or ""):
        told["name"] = name
    return told


def _call_as_rendered(call: Mapping[str, Any]) -> Json:
    function = call["function"]
    arguments = json.loads(function["arguments"] or "{}")
    if not isinstance(arguments, dict):
        raise ValueError("the arguments of a call are a JSON object")
    return {"id": call["id"], "type": "function", "function": {"name": function["name"], "arguments": arguments}}
