"""Choosing tokens: properties that hold for any logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from slmops.engines import Sampling
from slmops.engines.sampling import Sampler, nucleus, top
from slmops.errors import BadInput

FLOATS = st.floats(-50, 50, width=32)
LOGITS = arrays.arrays(np.float32, st.integers(1, 40), elements=FLOATS)


@given(LOGITS, st.floats(1e-300, 10), st.floats(1e-6, 1))
@example(np.array([-1.1754944e-38, 0], dtype=np.float32), 1.0, 0.5)
def test_the_nucleus_is_the_smallest_set_with_the_mass(logits, temperature, top_p):
    ids, cumulative = nucleus(logits, temperature, top_p)
    assert len(set(ids.tolist())) == len(ids) > 0
    assert (np.diff(cumulative) >= 0).all()
    # Logits that differ may weigh the same.
    assert np.exp((float(logits[ids].max()) - float(logits.max())) / temperature) == 1
    if top_p < 1:
        assert cumulative[-1] >= top_p - 1e-9
        assert len(ids) == 1 or cumulative[-2] < top_p
        outside = np.setdiff1d(np.arange(len(logits)), ids)
        # Tokens that weigh the same after rounding may fall on either side.
        assert all(logits[outside] <= logits[ids].min() + 1e-3 * max(1, temperature))


@given(LOGITS)
def test_without_temperature_the_most_likely_token_is_taken(logits):
    assert Sampler(Sampling(), [[1]]).choose(0, logits) == int(logits.argmax())


@given(LOGITS, st.floats(1e-3, 10), st.floats(1e-6, 1), st.integers(0, 2**63))
def test_a_draw_is_from_the_nucleus(logits, temperature, top_p, seed):
    sampler = Sampler(Sampling(temperature=temperature, top_p=top_p, seed=seed), [[1, 2]])
    assert sampler.choose(0, logits) in nucleus(logits, temperature, top_p)[0].tolist()


def test_frequencies_follow_the_softmax_at_the_temperature():
    logits = np.array([0.0, 1.0, 2.0, -np.inf], dtype=np.float32)
    sampler = Sampler(Sampling(temperature=2.0, seed=3), [[1]])
    counts = np.bincount([sampler.choose(0, logits) for _ in range(20_000)], minlength=4) / 20_000
    expected = np.exp([0.0, 0.5, 1.0]) / np.exp([0.0, 0.5, 1.0]).sum()
    np.testing.assert_allclose(counts, [*expected, 0.0], atol=0.012)


def test_draws_belong_to_the_request_and_not_to_its_place():
    logits = np.zeros(1000, dtype=np.float32)
    sampling = Sampling(temperature=1.0, seed=4)
    together = Sampler(sampling, [[1], [2], [1]])
    draws = [together.choose(request, logits) for request in range(3)]
    assert draws[1] == Sampler(sampling, [[2]]).choose(0, logits)
    assert draws[0] == Sampler(sampling, [[3], [1]]).choose(1, logits)
    assert len(set(draws)) == 3


@given(LOGITS, st.integers(1, 60))
def test_top_is_the_head_of_the_sorted_log_probabilities(logits, k):
    ids, values = top(logits, k)
    order = sorted(range(len(logits)), key=lambda id: (-logits[id], id))[:k]
    assert len(set(ids.tolist())) == len(order)
    np.testing.assert_array_equal(logits[ids], logits[order])
    exact = logits.astype(np.float64) - logits.max()
    exact -= np.log(np.exp(exact).sum())
    np.testing.assert_allclose(values, exact[ids], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"seed": -1},
    ],
)
def test_values_out_of_range(wrong):
    with pytest.raises(BadInput, match=next(iter(wrong))):
        Sampling(**wrong)
