"""How sure a figure is, and whether one model is better than another on the same rows.

All comparisons are paired: row i of one array and row i of the other are answers to the same message. Bootstraps
resample whole rows, so what the rows share (an easy message, say) cancels out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from slmops.errors import BadInput

Array = npt.NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""A figure of rows from the means of their columns: shape [n, columns] to [n], for n sets of rows at once."""

_CHUNK_CELLS = 4_000_000
"""Cells of the resampling matrix held at a time (32 MB)."""


class Interval(NamedTuple):
    """Both ends of a confidence interval."""

    low: float
    high: float


class Difference(NamedTuple):
    """A difference, its confidence interval and its two-sided p-value against no difference."""

    value: float
    interval: Interval
    p_value: float


def mean(means: Array) -> Array:
    """The mean of one column, e.g. of exact match 0/1."""
    return means[:, 0]


def micro_f1(means: Array) -> Array:
    """Micro-F1 of the columns true positives, false positives and false negatives; 0 where nothing was counted."""
    counted = 2 * means[:, 0] + means[:, 1] + means[:, 2]
    return np.divide(2 * means[:, 0], counted, out=np.zeros(len(means)), where=counted > 0)


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


def bootstrap_interval(
    figures: npt.ArrayLike, of: Statistic = mean, *, seed: int, resamples: int = 10_000, confidence: float = 0.95
) -> Interval:
    """Percentile interval of one model's figure.

    Args:
        figures: shape [rows] or [rows, columns], whatever `of` takes.
        of: the figure of these rows.
        seed: of the resampling.

    Source: Efron & Tibshirani (1993), "An Introduction to the Bootstrap", chapter 13.

    Raises:
        BadInput: there are no rows.
    """
    rows = _columns(figures)
    return _ends(of(_resampled(rows, seed, resamples)), confidence)


def paired_bootstrap(
    ours: npt.ArrayLike,
    theirs: npt.ArrayLike,
    of: Statistic = mean,
    *,
    seed: int,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> Difference:
    """How much higher our figure is than theirs on the same rows.

    The p-value is the share of resamples that stray from the difference as far as no difference does: Berg-Kirkpatrick,
    Burkett & Klein (2012), "An empirical investigation of statistical significance in NLP", EMNLP, section 2; here
    two-sided, and never 0 (Davison & Hinkley 1997, "Bootstrap Methods", chapter 4).

    Args:
        ours: shape [rows] or [rows, columns], whatever `of` takes.
        theirs: the other model's, of the same rows in the same order.
        of: the figure of these rows.
        seed: of the resampling.

    Raises:
        BadInput: there are no rows, or not the same number of them.
    """
    left, right = _paired(ours, theirs)
    value = float((of(_means(left)) - of(_means(right)))[0])
    drawn = _resampled(np.hstack([left, right]), seed, resamples)
    strays = of(drawn[:, : left.shape[1]]) - of(drawn[:, left.shape[1] :])
    # A resample that strays exactly as far counts, whatever the last bit of its sum says.
    as_far = int((np.abs(strays - value) >= abs(value) - 1e-12).sum())
    return Difference(value, _ends(strays, confidence), (1 + as_far) / (1 + resamples))


def ratio_interval(
    student: npt.ArrayLike,
    teacher: npt.ArrayLike,
    of: Statistic = mean,
    *,
    seed: int,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> Interval | None:
    """Percentile interval of the share of the teacher's figure that the student keeps; it may pass 1.

    None where the teacher's figure is 0, or above it on so few rows that the interval has no upper end. Arguments and
    errors are those of `paired_bootstrap`.
    """
    left, right = _paired(student, teacher)
    drawn = _resampled(np.hstack([left, right]), seed, resamples)
    kept, base = of(drawn[:, : left.shape[1]]), of(drawn[:, left.shape[1] :])
    # A resample in which the teacher has nothing sets no bound to what is kept.
    ends = _ends(np.divide(kept, base, out=np.full(resamples, np.inf), where=base > 0), confidence)
    return None if math.isinf(ends.high) else ends


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


def _resampled(rows: Array, seed: int, resamples: int) -> Array:
    """Column means of resampled rows, shape [resamples, columns].

    To draw rows with replacement is to draw how often each is taken, a multinomial; one product then gives the sums.
    """
    rng = np.random.default_rng(seed)
    each = np.full(len(rows), 1 / len(rows))
    means = np.empty((resamples, rows.shape[1]))
    chunk = max(1, _CHUNK_CELLS // len(rows))
    for start in range(0, resamples, chunk):
        taken = rng.multinomial(len(rows), each, size=min(chunk, resamples - start))
        means[start : start + chunk] = taken @ rows / len(rows)
    return means


def _ends(drawn: Array, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    # Values that were drawn, not between two of them: between a finite and an infinite one lies NaN.
    low, high = np.quantile(drawn, tail, method="lower"), np.quantile(drawn, 1 - tail, method="higher")
    return Interval(float(low), float(high))
