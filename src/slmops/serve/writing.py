"""From tokens to the text that is sent: whole characters alone, and nothing of what a stop string ends."""

from __future__ import annotations

from collections.abc import Sequence

from slmops.models.tokenizer import TextStream


class Writing:
    """The text of one answer as it comes, up to the first of its stop strings.

    A character comes when its last token is there, and what may begin a stop string when it is known not to.

    Attributes:
        stopped: a stop string was written; nothing comes after that.
    """

    def __init__(self, stream: TextStream, stops: Sequence[str]) -> None:
        self._stream, self._stops = stream, [stop for stop in stops if stop]
        self._held = ""
        self.stopped = False

    def feed(self, token: int) -> str:
        """What can be sent once `token` is written."""
        return self._released(self._stream.feed(token))

    def end(self) -> str:
        """What is left when nothing more is written."""
        if self.stopped:
            return ""
        rest = self._released(self._stream.flush())
        rest, self._held = rest + ("" if self.stopped else self._held), ""
        return rest

    def _released(self, piece: str) -> str:
        if self.stopped:
            return ""
        text = self._held + piece
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def overlap(text: str, stop: str) -> int:
    """Characters at the end of `text` that `stop` may begin with."""
    most = min(len(text), len(stop) - 1)
    return next((n for n in range(most, 0, -1) if text.endswith(stop[:n])), 0)
