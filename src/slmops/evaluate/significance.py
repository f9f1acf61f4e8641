"""How sure a figure is, and whether one model is better than another on the same rows.

All comparisons are paired: row i of one array and row i of the other are answers to the same message. Bootstraps
resample whole rows, so what the rows share (an easy message, say) cancels out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from slmops.errors import BadInput
from slmops.tasks.figures import Array, Statistic, mean

RESAMPLES = 10_000
_CHUNK_CELLS = 4_000_000
"""Cells of the resampling matrix held at a time (32 MB)."""
_SPARSE = 0.05
"""Share of cells that are not 0, below which a table is worth being multiplied as a sparse one."""


class Interval(NamedTuple):
    """Both ends of a confidence interval."""

    low: float
    high: float


class Difference(NamedTuple):
    """A difference, its confidence interval and its two-sided p-value against no difference."""

    value: float
    interval: Interval
    p_value: float


def wilson(successes: int, rows: int, confidence: float = 0.95) -> Interval:
    """Score interval of a share; never leaves 0..1 and holds its level for small counts, where ±1.96·SE does not.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference", JASA 22.

    Raises:
        BadInput: no rows, or more successes than rows.
    """
    if not 0 <= successes <= rows or rows == 0:
        raise BadInput(f"no share of {successes} in {rows} rows")
    z, share = _quantile(confidence), successes / rows
    centre = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * math.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    # At the ends the formula gives 0 and 1 exactly; in floating point it misses them by a hair.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == rows else centre + half
    return Interval(low, high)


class Drawn(NamedTuple):
    """A figure of one model, and what it is in each resample of the rows, shape [resamples]; NaN where it is none."""

    value: float
    resampled: Array


def draw(samples: Sequence[tuple[Array, Statistic]], *, seed: int, resamples: int = RESAMPLES) -> list[Drawn]:
    """Figures of the same rows, all of them in the same resamples, so that any two can be compared.

    Args:
        samples: per figure: columns, shape [rows, columns], and the figure from their means.
        seed: of the resampling.

    Raises:
        BadInput: there are no rows, or not the same number of them.
    """
    tables = [_columns(table) for table, _ in samples]
    if {len(table) for table in tables} - {len(tables[0])}:
        raise BadInput(
            f"paired figures must be of the same rows; there are {' and '.join(str(len(table)) for table in tables)}",
            hint="give every model the same rows",
        )
    rows, ends = np.hstack(tables), np.cumsum([table.shape[1] for table in tables])
    found = np.empty((len(samples), resamples))
    done = 0
    for means in _resampled(rows, seed, resamples):
        parts = np.split(means, ends[:-1], axis=1)
        for place, (part, (_, of)) in enumerate(zip(parts, samples, strict=True)):
            found[place, done : done + len(means)] = of(part)
        done += len(means)
    return [
        Drawn(float(of(_means(table))[0]), drawn) for table, (_, of), drawn in zip(tables, samples, found, strict=True)
    ]


def interval(drawn: Drawn, *, confidence: float = 0.95) -> Interval:
    """Percentile interval of one model's figure; both ends are NaN where the figure is.

    Source: Efron & Tibshirani (1993), "An Introduction to the Bootstrap", chapter 13.
    """
    ends = _ends(drawn.resampled, confidence)
    # A figure that bends (macro-F1 of rare classes) can have all its resamples on one side of it.
    return Interval(min(ends.low, drawn.value), max(ends.high, drawn.value))


def difference(ours: Drawn, theirs: Drawn, *, confidence: float = 0.95) -> Difference:
    """How much higher our figure is than theirs in the same rows.

    The p-value is the share of resamples that stray from the difference as far as no difference does: Berg-Kirkpatrick,
    Burkett & Klein (2012), "An empirical investigation of statistical significance in NLP", EMNLP, section 2; here
    two-sided, and never 0 (Davison & Hinkley 1997, "Bootstrap Methods", chapter 4).
    """
    value, strays = ours.value - theirs.value, _both(ours, theirs)
    # A resample that strays exactly as far counts, whatever the last bit of its sum says.
    as_far = int((np.abs(strays - value) >= abs(value) - 1e-12).sum())
    return Difference(value, _ends(strays, confidence), (1 + as_far) / (1 + len(strays)))


def ratio(student: Drawn, teacher: Drawn, *, confidence: float = 0.95) -> Interval | None:
    """Percentile interval of the share of the teacher's figure that the student keeps; it may pass 1.

    None where the teacher's figure is 0, or above it on so few rows that the interval has no upper end.
    """
    kept, base = student.resampled, teacher.resampled
    known = ~(np.isnan(kept) | np.isnan(base))
    # A resample in which the teacher has nothing sets no bound to what is kept.
    shares = np.divide(kept, base, out=np.full(len(base), np.inf), where=known & (base > 0))[known]
    ends = _ends(shares, confidence)
    return ends if math.isfinite(ends.high) else None


def bootstrap_interval(
    figures: npt.ArrayLike, of: Statistic = mean, *, seed: int, resamples: int = RESAMPLES, confidence: float = 0.95
) -> Interval:
    """`interval` of the figure `of` rows whose columns are `figures`: shape [rows] or [rows, columns].

    Raises:
        BadInput: there are no rows.
    """
    (drawn,) = draw([(_columns(figures), of)], seed=seed, resamples=resamples)
    return interval(drawn, confidence=confidence)


def paired_bootstrap(
    ours: npt.ArrayLike,
    theirs: npt.ArrayLike,
    of: Statistic = mean,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> Difference:
    """`difference` of the figure `of` two models, given their columns of the same rows in the same order.

    Raises:
        BadInput: there are no rows, or not the same number of them.
    """
    drawn = draw([(_columns(ours), of), (_columns(theirs), of)], seed=seed, resamples=resamples)
    return difference(*drawn, confidence=confidence)


def ratio_interval(
    student: npt.ArrayLike,
    teacher: npt.ArrayLike,
    of: Statistic = mean,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> Interval | None:
    """`ratio` of the figure `of` two models. Arguments and errors are those of `paired_bootstrap`."""
    drawn = draw([(_columns(student), of), (_columns(teacher), of)], seed=seed, resamples=resamples)
    return ratio(*drawn, confidence=confidence)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values made larger for having tested several times; each below 0.05 keeps the error of all at 0.05.

    Source: Holm (1979), "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 6.
    """
    adjusted = [0.0] * len(p_values)
    least = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted


def mcnemar(ours: npt.ArrayLike, theirs: npt.ArrayLike) -> float:
    """Exact two-sided p-value that two models are right equally often, from the rows where one is right alone.

    Args:
        ours: right (1) or wrong (0) per row, shape [rows].
        theirs: the other model's, in the same order.

    Source: McNemar (1947), Psychometrika 12; the exact binomial form.

    Raises:
        BadInput: no rows, unequal numbers of them, or values besides 0 and 1.
    """
    from scipy.stats import binomtest

    left, right = _paired(ours, theirs)
    if not (np.isin(left, (0, 1)).all() and np.isin(right, (0, 1)).all()):
        raise BadInput("McNemar's test compares right (1) and wrong (0); another value was given")
    alone = int((left > right).sum()), int((left < right).sum())
    return float(binomtest(alone[0], sum(alone)).pvalue) if sum(alone) else 1.0


def rows_needed(discordant: float, difference: float = 0.01, *, confidence: float = 0.95, power: float = 0.8) -> int:
    """Test rows with which a paired test sees a `difference` of two shares with probability `power`.

    Args:
        discordant: share of rows on which exactly one of the two models is right; at least `difference`.
        difference: of the two shares, 0.01 for one point.

    Source: Connor (1987), "Sample size for testing differences in proportions for the paired-sample design",
    Biometrics 43.

    Raises:
        BadInput: the shares cannot be.
    """
    if not 0 < difference <= discordant <= 1:
        raise BadInput(f"a difference of {difference} cannot come from {discordant} discordant rows")
    spread = _quantile(confidence) * math.sqrt(discordant)
    spread += NormalDist().inv_cdf(power) * math.sqrt(discordant - difference**2)
    return math.ceil((spread / difference) ** 2)


def rows_needed_for_spread(
    spread: float, difference: float = 0.01, *, confidence: float = 0.95, power: float = 0.8
) -> int:
    """Test rows with which a paired test sees a `difference` of two figures with probability `power`.

    Args:
        spread: standard deviation of the figures' difference in one row; of a figure that is no mean of rows, its
            standard error times the root of the rows that gave it.
        difference: of the two figures.

    Source: the sample size of a paired comparison by the normal distribution, e.g. Cohen (1988), "Statistical Power
    Analysis for the Behavioral Sciences", section 2.4.

    Raises:
        BadInput: the spread or the difference is not above 0.
    """
    if not (spread > 0 and difference > 0):
        raise BadInput(f"a difference of {difference} with a spread of {spread} needs no test")
    return math.ceil(((_quantile(confidence) + NormalDist().inv_cdf(power)) * spread / difference) ** 2)


def spread(ours: Drawn, theirs: Drawn, rows: int) -> float:
    """Standard deviation of the figures' difference in one row, from their resamples of `rows` rows."""
    return float(_both(ours, theirs).std()) * math.sqrt(rows)


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _columns(figures: npt.ArrayLike) -> Array:
    """Shape [rows, columns], also for one column given as [rows]."""
    array = np.asarray(figures, dtype=np.float64)
    if not array.size:
        raise BadInput("there are no rows to compare")
    return array.reshape(len(array), -1)


def _paired(ours: npt.ArrayLike, theirs: npt.ArrayLike) -> tuple[Array, Array]:
    left, right = _columns(ours), _columns(theirs)
    if left.shape != right.shape:
        raise BadInput(f"paired figures must be of the same rows; there are {len(left)} and {len(right)}")
    return left, right


def _means(rows: Array) -> Array:
    means: Array = rows.mean(axis=0, keepdims=True)
    return means


def _both(ours: Drawn, theirs: Drawn) -> Array:
    """The differences of the resamples in which both models have the figure."""
    apart = ours.resampled - theirs.resampled
    return apart[~np.isnan(apart)]


def _resampled(rows: Array, seed: int, resamples: int) -> Iterator[Array]:
    """Column means of resampled rows, shape [resamples, columns], in chunks.

    To draw rows with replacement is to draw how often each is taken; one product then gives the sums.
    """
    from scipy.sparse import csr_array

    rng = np.random.default_rng(seed)
    count = len(rows)
    # Counts per class are nearly all 0: for 77 classes this takes a tenth of the time.
    few = csr_array(rows.T) if np.count_nonzero(rows) < _SPARSE * rows.size else None
    chunk = max(1, _CHUNK_CELLS // count)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        # Numbers of rows are set apart by resample, so that one count serves a whole chunk.
        taken = rng.integers(count, size=(size, count)) + np.arange(size)[:, None] * count
        times = np.bincount(taken.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)
        yield (times @ rows if few is None else (few @ times.T).T) / count


def _ends(drawn: Array, confidence: float) -> Interval:
    """The percentiles of values, NaN aside; NaN where there are no others."""
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return Interval(math.nan, math.nan)
    tail = (1 - confidence) / 2
    # Values that were drawn, not between two of them: between a finite and an infinite one lies NaN.
    low, high = np.quantile(known, tail, method="lower"), np.quantile(known, 1 - tail, method="higher")
    return Interval(float(low), float(high))
