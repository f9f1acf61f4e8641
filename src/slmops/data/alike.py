"""Texts that are alike: which share so many of their shingles that one says hardly more than the other."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from scipy.sparse import csr_array

SHINGLE = 5
"""Characters of a shingle: so many that sentences on one topic share few, so few that a slip of the pen costs few."""

_MARKS = ".,;:!?…\"'`´“”„‘’«»()[]{}<>¿¡*_~"
"""Stripped from the ends of words: what a sentence is set in. Signs inside a word and of a sum stay."""

_NUMBER = re.compile(r"\d+")

_SHARED = 3
"""Shingles that two alike texts must share at the rare end of theirs; see `Alike`."""

_CHUNK = 1024
"""Rows that are compared at once: bounds the memory that their candidates take."""

_PAIRS = 20_000
"""Candidates whose shingles are compared at once."""


class Match(NamedTuple):
    """Another text, by its place, and the Jaccard similarity with it."""

    other: int
    similarity: float


def folded(text: str) -> str:
    """A text without what is not said aloud: case, Unicode form, spaces, and the marks around words."""
    words = unicodedata.normalize("NFKC", text).casefold().split()
    said = [bare for word in words if (bare := word.strip(_MARKS))]
    return " ".join(said or words)


class Alike:
    """Finds texts that are alike among many: J(a, b) = |A ∩ B| / |A ∪ B| of their sets of shingles is high.

    Numbers tell texts apart: where two do not name the same ones in the same order, as two orders of one shop, they are
    not alike, and their similarity is 0.

    No pair is missed. Two sets of a similarity of t or more, sorted by one order, share at least ℓ of their first
    |A| - ⌈t |A|⌉ + ℓ members (prefix filter: Chaudhuri, Ganti and Kaushik 2006; ℓ above 1: Wang, Li and Feng 2012).
    With the rarest first few other pairs do, and those are compared in full. A set that needs to share fewer than ℓ
    members is held to those.

    Takes some 40 bytes a character.

    Args:
        texts: all that are ever compared, since how rare a shingle is depends on all.
        asked: of each text the part that must be alike too, such as the question behind a long context: the similarity
            is then the lower of both. None where the whole text counts alone.
    """

    def __init__(self, texts: Sequence[str], asked: Sequence[str] | None = None) -> None:
        self._texts = texts
        self._asked = Alike(asked) if asked is not None and list(asked) != list(texts) else None

    def __len__(self) -> int:
        return len(self._texts)

    def similarity(self, one: int, other: int) -> float:
        """J of two of the texts, in 0..1."""
        return float(self._similar(np.array([one]), np.array([other]))[0])

    def nearest(self, rows: Sequence[int], among: Sequence[int], threshold: float) -> dict[int, Match]:
        """Of each of the rows the most similar of the others, where one has a similarity of `threshold` or more.

        Args:
            rows, among: places of texts.
            threshold: in (0, 1].
        """
        found: dict[int, Match] = {}
        others = np.array(among, dtype=np.int64)
        for start in range(0, len(rows), _CHUNK):
            chunk = np.array(rows[start : start + _CHUNK], dtype=np.int64)
            for one, other, similarity in self._above(chunk, others, threshold):
                if one not in found or similarity > found[one].similarity:
                    found[one] = Match(other, similarity)
        return found

    def twins(self, rows: Sequence[int], threshold: float) -> dict[int, Match]:
        """The rows that are like another one, and which: without them no two are alike.

        The longest texts stay, of equals the first in the order of their characters, so that what stays is the same in
        whatever order the rows are given.
        """
        # The same text twice is the one case in which the order of the rows decides.
        order = sorted(rows, key=lambda row: (-len(self._folded[row]), self._folded[row]))
        found: dict[int, Match] = {}
        kept = np.zeros(0, dtype=np.int64)
        for start in range(0, len(order), _CHUNK):
            chunk = np.array(order[start : start + _CHUNK], dtype=np.int64)
            nearest: dict[int, list[Match]] = {}
            for one, other, similarity in self._above(chunk, np.concatenate([kept, chunk]), threshold):
                nearest.setdefault(one, []).append(Match(other, similarity))
            place = {int(row): start + at for at, row in enumerate(chunk)}
            for row in map(int, chunk):
                # Kept ones come before the chunk; of the chunk, those before this row that are not twins themselves.
                before = [
                    match
                    for match in nearest.get(row, ())
                    if match.other not in found and place.get(match.other, -1) < place[row]
                ]
                if before:
                    found[row] = max(before, key=lambda match: match.similarity)
            kept = np.concatenate([kept, [row for row in chunk if int(row) not in found]]).astype(np.int64)
        return found

    def _above(
        self, rows: npt.NDArray[np.int64], among: npt.NDArray[np.int64], threshold: float
    ) -> Iterator[tuple[int, int, float]]:
        """Pairs of one of `rows` and another of `among` with a similarity of `threshold` or more."""
        if not len(rows) or not len(among):
            return
        prefixes, needed = self._prefixes(threshold)
        shared = (prefixes[rows] @ prefixes[among].T).tocoo()
        one, other = rows[shared.row], among[shared.col]
        sizes = self._sizes
        near = (shared.data >= np.minimum(needed[one], needed[other])) & (self._numbers[one] == self._numbers[other])
        near &= (one != other) & (
            np.minimum(sizes[one], sizes[other]) >= threshold * np.maximum(sizes[one], sizes[other])
        )
        one, other = one[near], other[near]
        for start in range(0, len(one), _PAIRS):
            left, right = one[start : start + _PAIRS], other[start : start + _PAIRS]
            similar = self._similar(left, right)
            for at in np.flatnonzero(similar >= threshold):
                yield int(left[at]), int(right[at]), float(similar[at])

    def _similar(self, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        both = np.asarray(self._matrix[left].multiply(self._matrix[right]).sum(axis=1)).ravel().astype(np.float64)
        found: npt.NDArray[np.float64] = both / (self._sizes[left] + self._sizes[right] - both)
        found[self._numbers[left] != self._numbers[right]] = 0
        return found if self._asked is None else np.minimum(found, self._asked._similar(left, right))

    @cached_property
    def _folded(self) -> list[str]:
        return [folded(text) for text in self._texts]

    @cached_property
    def _numbers(self) -> npt.NDArray[np.int64]:
        """Of each text which numbers it names, as one number: the same for the same ones."""
        known: dict[tuple[str, ...], int] = {}
        named = (tuple(_NUMBER.findall(text)) for text in self._folded)
        return np.array([known.setdefault(numbers, len(known)) for numbers in named], dtype=np.int64)

    @cached_property
    def _matrix(self) -> csr_array:
        """int32 [texts, shingles], 1 where a text has a shingle; the rarest shingles have the lowest columns."""
        from scipy.sparse import csr_array

        row, hashed = _hashed(self._folded)
        _, column, held = np.unique(hashed, return_inverse=True, return_counts=True)
        by_rarity = np.empty(len(held), dtype=np.int64)
        by_rarity[np.argsort(held, kind="stable")] = np.arange(len(held))
        matrix = csr_array(
            (np.ones(len(row), dtype=np.int32), (row, by_rarity[column])), shape=(len(self), max(len(held), 1))
        )
        matrix.sum_duplicates()
        matrix.data[:] = 1
        return matrix

    @cached_property
    def _sizes(self) -> npt.NDArray[np.int64]:
        sizes: npt.NDArray[np.int64] = np.diff(self._matrix.indptr).astype(np.int64)
        return sizes

    def _prefixes(self, threshold: float) -> tuple[csr_array, npt.NDArray[np.int64]]:
        """The rarest shingles of each text, as a matrix of all; and how many of them an alike text shares."""
        from scipy.sparse import csr_array

        if threshold not in self._known:
            sizes = self._sizes
            # The exact ceiling: 0.8 * 5 must be 4, not the 4.000…1 that a float product may be.
            whole = np.array([_ceiling(threshold, int(size)) for size in range(int(sizes.max(initial=0)) + 1)])[sizes]
            shared = np.minimum(_SHARED, whole)
            length = sizes - whole + shared
            starts = self._matrix.indptr[:-1]
            inside = np.arange(self._matrix.nnz) - np.repeat(starts, sizes) < np.repeat(length, sizes)
            ends = np.concatenate([[0], np.cumsum(length)])
            kept = csr_array((self._matrix.data[inside], self._matrix.indices[inside], ends), shape=self._matrix.shape)
            self._known[threshold] = kept, shared
        return self._known[threshold]

    @cached_property
    def _known(self) -> dict[float, tuple[csr_array, npt.NDArray[np.int64]]]:
        return {}


def _ceiling(threshold: float, size: int) -> int:
    return max(1, math.ceil(threshold * size - 1e-9))


def _hashed(texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """The shingles of all texts, as the number of the text and a 64-bit hash; a text that is shorter is one shingle."""
    padded = [text.ljust(SHINGLE, "\0") for text in texts]
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    lengths = np.array([len(text) for text in padded], dtype=np.int64)
    ends = np.cumsum(lengths)
    factors = np.random.default_rng(0).integers(1, 2**63, SHINGLE, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    windows = max(len(codes) - SHINGLE + 1, 0)
    hashed = np.zeros(windows, dtype=np.uint64)
    for at, factor in enumerate(factors):
        hashed += codes[at : at + windows] * factor
    text = np.repeat(np.arange(len(padded)), lengths)[:windows]
    whole = np.arange(windows) + SHINGLE <= ends[text]
    return text[whole], hashed[whole]
