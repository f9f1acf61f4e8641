"""Rows that resemble others: those like held-out rows must not be trained on, and of two alike one is enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from slmops.data.alike import Alike, Match
from slmops.data.dropped import CONTAMINATED, NEAR_DUPLICATE, dropped_row
from slmops.data.overlap import Overlap
from slmops.recipe.data import ScreenSettings
from slmops.tasks import Row, asked_part


class Resemblance:
    """Compares the rows of all sides with one another. Rows that were dropped are in `dropped`, with the reason.

    Args:
        rows: all rows that are ever compared; they are known by who they are, not by what they say.
        kind: of the task, which knows what part of an input is asked.
        stage: that drops rows.
    """

    def __init__(self, rows: Sequence[Row], settings: ScreenSettings, kind: str, *, stage: str = "data") -> None:
        self._rows, self._settings, self._stage = rows, settings, stage
        self._places = {id(row): place for place, row in enumerate(rows)}
        self._asked = [asked_part(kind, row["input"]) for row in rows]
        self._alike = Alike([row["input"] for row in rows], self._asked)
        self.dropped: list[Row] = []

    def uncontaminated(self, rows: Sequence[Row], side: str, held: Mapping[str, Sequence[Row]]) -> list[Row]:
        """The rows that resemble none of those that are held out, by their side."""
        sides = {self._place(row): name for name, kept in held.items() for row in kept}
        among, threshold = sorted(sides), self._settings.contaminated
        near = {} if threshold is None else self._alike.nearest(self._at(rows), among, threshold)
        share = self._settings.overlap
        words = Overlap([self._asked[place] for place in among] if share is not None else [], self._settings.run_words)
        kept = []
        for row in rows:
            place = self._place(row)
            if match := near.get(place):
                told = _likeness(sides[match.other], match)
                self._drop(row, side, CONTAMINATED, told, match.other, match.similarity)
            elif share is not None and (found := words.most(self._asked[place])) and found.similarity >= share:
                other = among[found.other]
                told = f"holds {found.similarity:.0%} of the words of a row of {sides[other]}"
                self._drop(row, side, CONTAMINATED, told, other, found.similarity)
            else:
                kept.append(row)
        return kept

    def single(self, rows: Sequence[Row], side: str, beside: Mapping[str, Sequence[Row]]) -> list[Row]:
        """The rows that are like none of another side's and none of each other's that stay."""
        threshold = self._settings.near_duplicates
        if threshold is None:
            return list(rows)
        sides = {self._place(row): name for name, others in beside.items() for row in others}
        found = self._alike.nearest(self._at(rows), sorted(sides), threshold)
        found |= self._alike.twins([place for place in self._at(rows) if place not in found], threshold)
        for row in rows:
            if match := found.get(self._place(row)):
                told = _likeness(sides.get(match.other, side), match)
                self._drop(row, side, NEAR_DUPLICATE, told, match.other, match.similarity)
        return [row for row in rows if self._place(row) not in found]

    def _place(self, row: Row) -> int:
        return self._places[id(row)]

    def _at(self, rows: Sequence[Row]) -> list[int]:
        return [self._place(row) for row in rows]

    def _drop(self, row: Row, side: str, reason: str, detail: str, other: int, similarity: float) -> None:
        like = self._rows[other]["id"]
        self.dropped.append(dropped_row(row, side, reason, detail, stage=self._stage, like=like, similarity=similarity))


def screened(
    rows: Sequence[Row],
    side: str,
    *,
    held: Mapping[str, Sequence[Row]],
    beside: Mapping[str, Sequence[Row]],
    settings: ScreenSettings,
    kind: str,
    stage: str = "data",
) -> tuple[list[Row], list[Row]]:
    """The rows that resemble none that is held out and none that is learned anyway; and the others, with the reason.

    Args:
        held: rows that must not be trained on, by their side.
        beside: rows that are trained on anyway, by their side.
    """
    among = [*chain(*held.values()), *chain(*beside.values()), *rows]
    resemblance = Resemblance(among, settings, kind, stage=stage)
    kept = resemblance.single(resemblance.uncontaminated(rows, side, held), side, beside)
    return kept, resemblance.dropped


def _likeness(side: str, match: Match) -> str:
    return f"like a row of {side}: {match.similarity:.0%} of their shingles are the same"
