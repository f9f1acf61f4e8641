"""Probabilities that match how often a model is right: one temperature for all of them, and where to abstain.

Source: Guo et al. (2017), "On Calibration of Modern Neural Networks", ICML, section 4.2. A temperature moves no label
past another, so no answer changes.
"""

from __future__ import annotations

import numpy as np

from slmops.bundle.labels import shares
from slmops.tasks.figures import Array

_COLDEST, _HOTTEST = 0.05, 20.0


def fit_temperature(scores: Array, right: Array) -> float:
    """The temperature at which the right labels are likeliest.

    A model that is right on all rows would be made certain of everything; so the right label has (n + 1) / (n + 2) of a
    row, n being the rows, and the others share the rest.
    Source: Platt (1999), "Probabilistic Outputs for Support Vector Machines", section 2.2.

    Args:
        scores: log-likelihoods, [rows, labels].
        right: index of the right label, [rows].
    """
    from scipy.optimize import minimize_scalar

    rows, labels = scores.shape
    wanted = np.full((rows, labels), 1 / (rows + 2) / (labels - 1))
    wanted[np.arange(rows), right] = (rows + 1) / (rows + 2)

    def loss(log_temperature: float) -> float:
        found = shares(scores, float(np.exp(log_temperature)))
        return float(-(wanted * np.log(np.maximum(found, 1e-300))).sum())

    found = minimize_scalar(loss, bounds=(np.log(_COLDEST), np.log(_HOTTEST)), method="bounded")
    return float(np.exp(found.x))


def threshold(confidence: Array, right: Array, wanted: float) -> float | None:
    """The smallest probability from which on the rows that have at least that are right in a share `wanted` of cases.

    None where no rows are: then nothing is gained by holding answers back.

    Args:
        confidence: the probability of each answer, [rows].
        right: whether it was the right one, 1 or 0, [rows].
    """
    surest = np.argsort(-confidence, kind="stable")
    sure, accuracy = confidence[surest], np.cumsum(right[surest]) / np.arange(1, len(surest) + 1)
    # Rows that are equally sure are answered together or not at all.
    ends = np.append(sure[1:] != sure[:-1], True)
    found = sure[ends & (accuracy >= wanted)]
    return float(found[-1]) if len(found) else None
