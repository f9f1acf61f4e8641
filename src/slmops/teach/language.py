"""Which language a text is written in, as far as it can be told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

_LEAST_SHARE = 0.01
"""Of the reference answers that a language must have to be one of theirs: rarer ones are more likely mistaken."""

_ENOUGH = 20
"""References whose language must be certain before anything is said of other texts."""


class Languages:
    """Tells languages by py3langid, a model of 97 languages that comes with its package (Lui and Baldwin 2011).

    Args:
        certainty: below which nothing is said.
        letters: of a text, below which nothing is said.
    """

    def __init__(self, certainty: float, letters: int) -> None:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        self._model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        self._certainty, self._letters = certainty, letters

    def of(self, text: str) -> tuple[str, float] | None:
        """ISO 639-1 code and probability; None where the text is too short or the model unsure."""
        if sum(map(str.isalpha, text)) < self._letters:
            return None
        code, probability = self._model.classify(text)
        return (str(code), float(probability)) if probability >= self._certainty else None

    def known(self, texts: Iterable[str]) -> frozenset[str]:
        """The languages of reference texts; none where those of too few can be told."""
        found = Counter(told[0] for text in texts if (told := self.of(text)))
        if found.total() < _ENOUGH:
            return frozenset()
        return frozenset(code for code, count in found.items() if count >= _LEAST_SHARE * found.total())
