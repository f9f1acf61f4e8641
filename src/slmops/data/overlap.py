"""Held-out texts whose words stand in another text, run after run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from slmops.data.alike import Match, folded

_COMMON = 10
"""Held-out texts that may have a run before it counts as a phrase of the trade, which gives none of them away."""


class Overlap:
    """Finds the held-out text of which another text holds the greatest share of words, in runs of n words or more.

    As in Lambert et al. 2024 (Tülu 3, section 3.2) a word of a held-out text is matched where a run around it stands in
    one text to train on, and half of the words matched is contamination. They take runs of 8 words; in messages of a
    dozen words one phrase of the trade is as long, so the default here is the 13 of Brown et al. 2020 (GPT-3, appendix
    C). As there, a run that more than ten texts have tells nothing, here more than ten held-out ones. A text with fewer
    than n words has no run; such a one is found by its likeness alone (`slmops.data.alike`).

    Args:
        held: the held-out texts.
        run: n.
    """

    def __init__(self, held: Sequence[str], run: int) -> None:
        self._run = run
        self._words = [folded(text).split() for text in held]
        runs: defaultdict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
        for text, words in enumerate(self._words):
            for at, words_of_run in enumerate(self._runs(words)):
                runs[words_of_run].append((text, at))
        self._places = {key: found for key, found in runs.items() if len({text for text, _ in found}) <= _COMMON}

    def most(self, text: str) -> Match | None:
        """The held-out text with the greatest share of its words in `text`; None where no run of any stands there."""
        if not self._places:
            return None
        covered: defaultdict[int, set[int]] = defaultdict(set)
        for words in set(self._runs(folded(text).split())):
            for held, at in self._places.get(words, ()):
                covered[held].update(range(at, at + self._run))
        shares = [Match(held, len(words) / len(self._words[held])) for held, words in covered.items()]
        return max(shares, key=lambda match: match.similarity, default=None)

    def _runs(self, words: Sequence[str]) -> Iterator[tuple[str, ...]]:
        return (tuple(words[at : at + self._run]) for at in range(len(words) - self._run + 1))
