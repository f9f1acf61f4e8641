"""A figure: which columns of judged rows it needs, and how it follows from their means.

Columns add up over rows, so a figure of any set of rows, and of any resample of them, follows from column means alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slmops.errors import BadInput

Array = npt.NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""A figure of rows from the means of their columns: shape [n, columns] to [n], for n sets of rows at once.

NaN where the rows say nothing about the figure, e.g. field F1 where no row has a field.
"""


def mean(means: Array) -> Array:
    """The mean of one column, e.g. of exact match 0/1."""
    return means[:, 0]


def micro_f1(means: Array) -> Array:
    """Micro-F1 of the columns true positives, false positives and false negatives; NaN where nothing was counted."""
    return _divided(2 * means[:, 0], 2 * means[:, 0] + means[:, 1] + means[:, 2])


def precision(means: Array) -> Array:
    """Precision of the columns of `micro_f1`; 0 where nothing was given, NaN where nothing was counted."""
    return _of_counted(means, means[:, 0] + means[:, 1])


def recall(means: Array) -> Array:
    """Recall of the columns of `micro_f1`; 0 where nothing was wanted, NaN where nothing was counted."""
    return _of_counted(means, means[:, 0] + means[:, 2])


def macro_f1(means: Array) -> Array:
    """The mean F1 of the classes that occur; columns are all true positives, all false positives, all false negatives.

    A class that is neither wanted nor given in any row does not count, as in scikit-learn.
    """
    hits, invented, missed = np.split(means, 3, axis=1)
    counted = 2 * hits + invented + missed
    f1 = np.divide(2 * hits, counted, out=np.zeros_like(hits), where=counted > 0)
    return _divided(f1.sum(axis=1), (counted > 0).sum(axis=1))


def perplexity(means: Array) -> Array:
    """`exp` of the negative log-likelihood per token, from the columns log-likelihood (nats, negated) and tokens."""
    return np.exp(_divided(means[:, 0], means[:, 1]))


@dataclass(frozen=True)
class Figure:
    """One number that judged rows give.

    Attributes:
        name: as in reports and gates.
        columns: keys of a judged row; one that a row lacks is 0 there.
        of: the figure from the means of these columns.
        compared: models are tested against each other on it, and what one keeps of another's is told.
        lower_is_better: which way is better.
    """

    name: str
    columns: tuple[str, ...]
    of: Statistic = mean
    compared: bool = False
    lower_is_better: bool = False

    def table(self, judged: Sequence[Mapping[str, float]]) -> Array:
        """The figure's columns, shape [rows, columns].

        Raises:
            BadInput: there are no rows.
        """
        if not judged:
            raise BadInput("there are no rows to judge", hint="give test rows with reference answers")
        place = {name: number for number, name in enumerate(self.columns)}
        table = np.zeros((len(judged), len(place)))
        for row, columns in zip(table, judged, strict=True):
            for name in columns.keys() & place.keys():
                row[place[name]] = columns[name]
        return table

    def value(self, judged: Sequence[Mapping[str, float]]) -> float:
        """The figure of these rows; NaN where they say nothing about it."""
        return float(self.of(self.table(judged).mean(axis=0, keepdims=True))[0])


def share(name: str, *, compared: bool = False) -> Figure:
    """The mean of the column of the same name."""
    return Figure(name, (name,), compared=compared)


def measured(figures: Sequence[Figure], judged: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Each figure of the judged rows, in order; one that no row speaks to is left out.

    Raises:
        BadInput: there are no rows.
    """
    values = {figure.name: figure.value(judged) for figure in figures}
    return {name: value for name, value in values.items() if not np.isnan(value)}


def _of_counted(means: Array, whole: Array) -> Array:
    counted = means.sum(axis=1) > 0
    shares = np.divide(means[:, 0], whole, out=np.zeros(len(means)), where=whole > 0)
    return np.where(counted, shares, np.nan)


def _divided(part: Array, whole: Array) -> Array:
    return np.asarray(np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0))
