"""How one tokenizer spells the tokens of another that it was cut out of (`slmops.models.vocabulary`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from slmops.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class Spelling:
    """Tokens of a whole vocabulary in those of the one that was cut out of it.

    Attributes:
        pieces: for each token of the whole, ascending, the tokens that spell it: the same one, or smaller ones.
        kept: for each token of the cut one, ascending, its id in the whole.
    """

    pieces: list[list[int]]
    kept: list[int]

    def of(self, ids: Iterable[int]) -> list[int]:
        """Tokens of the whole, each spelled by itself."""
        return [piece for id in ids for piece in self.pieces[id]]

    def cuts(self, ids: Iterable[int]) -> bool:
        """Whether one of these tokens of the whole was left out."""
        return not self._there.issuperset(ids)

    def first(self, id: int) -> int | None:
        """What a token of the whole begins with; None of a number that is no token, of which a model may have rows."""
        return next(iter(self.pieces[id]), None) if id < len(self.pieces) else None

    @cached_property
    def _there(self) -> frozenset[int]:
        return frozenset(self.kept)


def spelling(whole: Tokenizer, small: Tokenizer) -> Spelling | None:
    """How `small` spells the tokens of `whole`; None where it leaves none out, or has some that `whole` does not."""
    theirs, ours = (one.backend.get_vocab(with_added_tokens=True) for one in (whole, small))
    if not ours.keys() < theirs.keys():
        return None
    split, pieces = small.backend.model.tokenize, [list[int]() for _ in range(whole.size)]
    for name, id in theirs.items():
        pieces[id] = [ours[name]] if name in ours else [token.id for token in split(name)]
    return Spelling(pieces, [theirs[name] for name in sorted(ours, key=ours.__getitem__)])
