"""Timed requests dealt into passes, and the figures they come to, on times that can be checked by hand."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.evaluate.latency import Timed, passes, summary


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40))
def test_every_request_is_in_one_pass_and_passes_are_alike(lengths):
    parts = passes(lengths)
    assert sorted(i for part in parts for i in part) == list(range(len(lengths)))
    sizes = [len(part) for part in parts]
    assert 0 < min(sizes) <= max(sizes) <= min(sizes) + 1
    means = [sum(lengths[i] for i in part) / len(part) for part in parts]
    assert max(means) - min(means) <= max(lengths) - min(lengths)


def test_passes_of_sorted_lengths_interleave():
    assert passes([10, 20, 30, 40, 50, 60]) == [[0, 3], [1, 4], [2, 5]]


def test_percentiles_and_spread():
    parts = [[Timed(5, 3, 0.1, 0.1 * i) for i in range(start, start + 3)] for start in (2, 5, 8)]
    figures = summary(parts)
    assert figures["latency_p50_ms"] == pytest.approx(600)
    assert figures["latency_p90_ms"] == pytest.approx(920)
    assert figures["latency_p99_ms"] == pytest.approx(992)
    assert figures["latency_spread_ms"] == pytest.approx([300, 900])
    assert figures["ttft_p50_ms"] == pytest.approx(100)
    assert figures["tpot_p50_ms"] == pytest.approx(250)
    assert figures["tokens_per_s"] == pytest.approx(27 / 5.4)


def test_latency_by_prompt_length():
    times = [Timed(tokens, 1, tokens / 1000, tokens / 1000) for tokens in (10, 11, 12, 50, 51, 52, 90, 91, 92)]
    short, middling, long = summary([times])["latency_by_length"]
    assert (short["tokens_from"], short["tokens_to"], short["requests"]) == (10, 12, 3)
    assert (middling["tokens_from"], middling["tokens_to"], middling["p50_ms"]) == (50, 52, pytest.approx(51))
    assert (long["tokens_from"], long["tokens_to"], long["ttft_p50_ms"]) == (90, 92, pytest.approx(91))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30))
def test_buckets_hold_every_request_once_and_do_not_overlap(lengths):
    buckets = summary([[Timed(length, 1, 0.1, 0.2) for length in lengths]])["latency_by_length"]
    assert sum(bucket["requests"] for bucket in buckets) == len(lengths)
    ends = [end for bucket in buckets for end in (bucket["tokens_from"], bucket["tokens_to"])]
    assert ends == sorted(ends)
    assert all(a["tokens_to"] < b["tokens_from"] for a, b in itertools.pairwise(buckets))


def test_answers_of_one_token_have_no_time_between_tokens():
    assert summary([[Timed(5, 1, 0.1, 0.1)]])["tpot_p50_ms"] == 0.0
