"""A temperature makes probabilities true, and a threshold answers as often as it may."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.bundle.labels import shares
from slmops.evaluate.calibration import calibration
from slmops.evaluate.temperature import fit_temperature, threshold


def drawn(temperature: float, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a model that is sure by the wrong measure, and labels drawn from what it ought to say."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(rows, 4)) * 3
    right = np.array([rng.choice(4, p=row) for row in shares(scores, temperature)])
    return scores, right


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_by_is_found_and_makes_held_out_rows_true(temperature):
    scores, right = drawn(temperature, 3000, 0)
    found = fit_temperature(scores, right)
    assert found == pytest.approx(temperature, rel=0.15)
    others, labels = drawn(temperature, 3000, 1)

    def error(at: float) -> float:
        probabilities = shares(others, at)
        return calibration(probabilities.max(axis=1), (probabilities.argmax(axis=1) == labels).astype(float))["ece"]

    assert error(found) < 0.03
    assert temperature == 1.0 or error(found) < error(1.0) / 3


def test_of_rows_that_are_all_right_no_model_becomes_certain():
    scores = np.tile([3.0, 0.0, 0.0], (40, 1))
    found = shares(scores, fit_temperature(scores, np.zeros(40, dtype=int)))
    assert found[0, 0] == pytest.approx(41 / 42, abs=1e-3)


@given(st.lists(st.tuples(st.integers(1, 10), st.booleans()), min_size=1, max_size=30), st.floats(0.5, 1))
def test_no_smaller_threshold_would_do(rows, wanted):
    confidence, right = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    confidence /= 10

    def reaches(bound: float) -> bool:
        return bool(right[confidence >= bound].mean() >= wanted)

    found = threshold(confidence, right, wanted)
    expected = [bound for bound in sorted(set(confidence)) if reaches(bound)]
    assert found == (expected[0] if expected else None)
