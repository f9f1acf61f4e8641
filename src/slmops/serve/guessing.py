"""What an answer may say next, guessed without a model: common phrases of the task, and what the prompt says.

A guess is run in the same step as the token before it, and kept where the model itself says so: speculative decoding
(Leviathan et al. 2023) whose draft is a table and the prompt (Saxena 2023, "Prompt lookup decoding"). The model draws
each token as it would have, so an answer is the same with and without guesses, also where it is drawn by chance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from slmops.bundle.phrases import Phrases

_LEAST_LIKELY = 0.3
"""A guess is given up where it is likely wrong, with all that would follow on it."""

_SURE = 0.8
"""What is said in this share of the places is guessed, whatever the prompt says."""

_PLACES = 8
"""Places of a token in the prompt that are looked at, the last ones."""

_LONGEST = 4
_RIGHT, _ASKED = 3, 5
"""Of guesses from the prompt, as if so many had been right of so many, before any was made."""


class Guesser:
    """What follows in one answer."""

    def __init__(self, phrases: Phrases, prompt: Sequence[int], most: int) -> None:
        """`most` tokens are guessed at a time."""
        self._phrases, self._text, self._read, self._most = phrases, list(prompt), len(prompt), most
        self._places: defaultdict[int, list[int]] = defaultdict(list)
        # The last token of the prompt has the answer behind it.
        for place, token in enumerate(prompt[:-1]):
            self._places[token].append(place)
        self._right, self._asked = _RIGHT, _ASKED
        self._looked_up: dict[int, int] = {}

    def said(self, token: int) -> None:
        """The answer went on with `token`."""
        if (guess := self._looked_up.get(len(self._text))) is not None:
            self._asked += 1
            self._right += guess == token
        self._text.append(token)

    def guess(self, room: int) -> list[int]:
        """What may follow on what was said, `room` tokens at most."""
        text, begun, likely = self._text, len(self._text), 1.0
        self._looked_up = {}
        while len(text) - begun < min(self._most, room):
            found, looked_up = self._next()
            likely *= found[1] if found else 0.0
            if found is None or likely < _LEAST_LIKELY:
                break
            if looked_up:
                self._looked_up[len(text)] = found[0]
            text.append(found[0])
        guesses = text[begun:]
        del text[begun:]
        return guesses

    def _next(self) -> tuple[tuple[int, float] | None, bool]:
        """The likeliest token behind the text with its share, and whether it is the prompt's."""
        common = self._phrases.after(self._text)
        if common and common[1] >= _SURE:
            return common, False
        place, trust = self._looked_for(), self._right / self._asked
        if place is None or (common and common[1] >= trust):
            return common, False
        return (self._text[place + 1], trust), True

    def _looked_for(self) -> int | None:
        """Where in the prompt the longest end of the text stands, the last such place; None where no end does."""
        text, best, place = self._text, 0, None
        for other in reversed(self._places.get(text[-1], ())[-_PLACES:]):
            same = 1
            while same < min(_LONGEST, other + 1) and text[other - same] == text[-1 - same]:
                same += 1
            if same > best:
                best, place = same, other
        return place
