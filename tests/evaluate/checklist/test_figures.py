"""The arithmetic of the checklist on numbers whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmops.evaluate.checklist.lengths import exponent
from slmops.evaluate.checklist.line import Line
from slmops.evaluate.checklist.memory import growth_kb_per_1000
from slmops.evaluate.checklist.parity import kl_nats
from slmops.evaluate.checklist.table import table


@settings(max_examples=15, deadline=None)
@given(slope=st.floats(-5, 5), requests=st.integers(10, 1500))
def test_the_slope_of_a_straight_line(slope, requests):
    assert growth_kb_per_1000([90_000 + slope * i for i in range(requests)])[0] == pytest.approx(slope * 1000, abs=1e-3)


def test_a_single_step_of_an_allocator_is_no_growth():
    slope, low, high = growth_kb_per_1000([100_000.0] * 900 + [104_000.0] * 100)
    assert slope == 0
    assert low <= 0 <= high


def test_a_slow_leak_shows_through_noise():
    noise = np.random.default_rng(7).normal(0, 300, 1000)
    slope, low, high = growth_kb_per_1000([100_000 + 1.0 * i + noise[i] for i in range(1000)])
    assert 850 < slope < 1150
    assert 512 < low < slope < high


@given(b=st.floats(-1, 3), a=st.floats(1e-4, 10))
def test_the_exponent_of_a_power(b, a):
    assert exponent([(n, a * n**b) for n in (10, 40, 160, 640)]) == pytest.approx(b, abs=1e-6)


def test_one_length_has_no_exponent():
    assert exponent([(10, 1.0), (10, 2.0)]) is None
    assert exponent([]) is None


def test_divergence_against_a_sum_by_hand():
    source, shipped = np.log([[0.5, 0.5], [0.9, 0.1]]), np.log([[0.5, 0.5], [0.5, 0.5]])
    assert kl_nats(source, shipped) == pytest.approx([0, 0.9 * np.log(1.8) + 0.1 * np.log(0.2)])


def test_the_table_fits_a_terminal_and_obeys_nobody():
    lines = [
        Line("answers in domain", "pass", "99.0% of 200 answered", "at least 95%"),
        Line("no memory growth", "skipped", detail="not enough evidence: 200 requests"),
        Line("parity with the source", "fail", "x" * 200, "none", "wrote '\x1b[2J\u202e' " + "y" * 900),
    ]
    text = table(lines)
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[0] == "answers in domain        pass    99.0% of 200 answered"
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert text.endswith("1 passed, 1 failed, 1 skipped")
