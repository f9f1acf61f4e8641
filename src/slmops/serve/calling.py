"""From an answer's text, as it comes, to what is said and which tools are called."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from slmops.serve.tools import ToolForm
from slmops.serve.writing import overlap


@dataclass(frozen=True)
class Call:
    """A tool that the model wants called.

    Attributes:
        arguments: JSON text of an object.
    """

    name: str
    arguments: str
    id: str = field(default_factory=lambda: f"call_{secrets.token_hex(12)}")


class Calling:
    """One answer. Text comes through until a call may begin; what turns out to be none comes through then.

    Attributes:
        calls: that were found so far.
    """

    def __init__(self, form: ToolForm, names: Collection[str], *, one: bool = False) -> None:
        """`names` are the tools that there are; with `one`, what stands behind a call is dropped."""
        self._form, self._names, self._one = form, names, one
        self._held, self._said, self._behind_call = "", False, False
        # Between calls stands what separates them, which is no text of the answer.
        self._seams = None if form.mark else " \n\t;,"
        self.calls: list[Call] = []

    def feed(self, text: str) -> tuple[str, list[Call]]:
        """What can be said once `text` is written, and the calls that are whole then."""
        self._held += text
        return self._taken(over=False)

    def end(self) -> tuple[str, list[Call]]:
        """The same for what is left when nothing more is written."""
        said, found = self._taken(over=True)
        rest, self._held = self._text(self._held), ""
        return said + rest, found

    def _taken(self, *, over: bool) -> tuple[str, list[Call]]:
        said, before = "", len(self.calls)
        while not (self._one and self.calls):
            at = self._begins()
            said, self._held = said + self._text(self._held[:at]), self._held[at:]
            call, end = self._call(over=over)
            if call is None:
                break
            self.calls.append(call)
            self._held, self._behind_call = self._held[end:], True
        if self._one and self.calls:
            self._held = ""
        return said, self.calls[before:]

    def _text(self, said: str) -> str:
        """What of a text is said."""
        if self._behind_call:
            said = said.lstrip(self._seams)
            self._behind_call = not said
        self._said = self._said or bool(said.strip())
        return said

    def _begins(self) -> int:
        """Where in the held text a call begins, or may."""
        text, mark = self._held, self._form.mark
        if mark:
            at = text.find(mark)
            return at if at >= 0 else len(text) - overlap(text, mark)
        # Without a mark it is a call only where the answer begins with it, or follows on another one.
        begun = len(text) - len(text.lstrip(self._seams))
        if self._said:
            return len(text)
        if begun == len(text):
            return 0
        return begun if text[begun] == "{" else len(text)

    def _call(self, *, over: bool) -> tuple[Call | None, int]:
        """The call that the held text begins with, and where it ends; None where there is none yet."""
        start = len(self._form.mark)
        at = self._held.find("{", start)
        if not self._held.startswith(self._form.mark) or at < 0 or self._held[start:at].strip():
            return None, 0
        try:
            found, end = json.JSONDecoder().raw_decode(self._held, at)
        except ValueError:
            return None, 0
        arguments: Any = found.get(self._form.arguments, {})
        if found.get("name") not in self._names or not isinstance(arguments, dict):
            return None, 0
        closing = self._form.closing.strip()
        rest = self._held[end:].lstrip()
        unfinished = len(rest) < len(closing) and closing.startswith(rest)
        if unfinished and not over:
            return None, 0
        # An answer may end before all of it is written.
        rest = "" if unfinished else rest.removeprefix(closing)
        return Call(found["name"], json.dumps(arguments, ensure_ascii=False)), len(self._held) - len(rest)
