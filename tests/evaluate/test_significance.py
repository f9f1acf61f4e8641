"""The statistics against published values, against scipy, and against simulated truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from slmops.errors import BadInput
from slmops.evaluate.significance import (
    bootstrap_interval,
    difference,
    draw,
    holm,
    interval,
    mcnemar,
    paired_bootstrap,
    ratio,
    ratio_interval,
    rows_needed,
    rows_needed_for_spread,
    spread,
    wilson,
)
from slmops.tasks.figures import macro_f1, mean, micro_f1

Array = npt.NDArray[Any]


@pytest.mark.parametrize(
    ("successes", "rows", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_values_of_newcombe_1998(successes: int, rows: int, low: float, high: float) -> None:
    """Newcombe (1998), Statistics in Medicine 17, table I, method 3."""
    assert wilson(successes, rows) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 2000), st.floats(0, 1), st.floats(0.5, 0.999))
def test_wilson_gives_the_values_of_scipy(rows: int, share: float, confidence: float) -> None:
    successes = round(share * rows)
    expected = stats.binomtest(successes, rows).proportion_ci(confidence, method="wilson")
    interval = wilson(successes, rows, confidence)
    assert interval == pytest.approx(tuple(expected), abs=1e-9)
    assert 0 <= interval.low <= successes / rows <= interval.high <= 1


@pytest.mark.parametrize(("successes", "rows"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_what_is_no_share(successes: int, rows: int) -> None:
    with pytest.raises(BadInput, match="no share"):
        wilson(successes, rows)


def pair(both: int, ours: int, theirs: int, neither: int) -> tuple[Array, Array]:
    """Right/wrong rows of two models with these counts."""
    return (
        np.repeat([1, 1, 0, 0], [both, ours, theirs, neither]),
        np.repeat([1, 0, 1, 0], [both, ours, theirs, neither]),
    )


def test_mcnemar_gives_the_published_value() -> None:
    """The example of statsmodels' `mcnemar(exact=True)`, checked there against R's exact2x2."""
    assert mcnemar(*pair(101, 121, 59, 33)) == pytest.approx(4.434e-06, rel=1e-3)


def test_mcnemar_by_hand() -> None:
    assert mcnemar(*pair(10, 5, 0, 3)) == pytest.approx(2 / 2**5)
    assert mcnemar(*pair(10, 3, 1, 3)) == pytest.approx(2 * (1 + 4) / 2**4)
    assert mcnemar(*pair(10, 0, 0, 3)) == 1
    assert mcnemar(*pair(0, 4, 4, 0)) == 1
    ours, theirs = pair(20, 9, 4, 7)
    assert mcnemar(ours, theirs) == mcnemar(theirs, ours)
    with pytest.raises(BadInput, match=r"right \(1\) and wrong \(0\)"):
        mcnemar([0.5], [1])


def counts(rng: np.random.Generator, rows: int, skill: float) -> Array:
    """True positives, false positives and false negatives of rows with 0–4 fields each."""
    fields = rng.integers(0, 5, rows)
    hits = rng.binomial(fields, skill)
    return np.column_stack([hits, rng.poisson(0.3, rows), fields - hits])


def test_intervals_are_those_of_scipy() -> None:
    rng = np.random.default_rng(5)
    ours, theirs = rng.random(150), rng.random(150)
    for confidence in (0.8, 0.95):
        expected = stats.bootstrap(
            (ours, theirs), lambda a, b, axis: a.mean(axis) - b.mean(axis), paired=True, vectorized=True,
            confidence_level=confidence, method="percentile", n_resamples=10_000, rng=rng,
        ).confidence_interval  # fmt: skip
        difference = paired_bootstrap(ours, theirs, seed=1, confidence=confidence)
        assert difference.value == pytest.approx(ours.mean() - theirs.mean())
        assert difference.interval == pytest.approx(tuple(expected), abs=0.004)
    single = stats.bootstrap((ours,), np.mean, method="percentile", rng=rng).confidence_interval
    assert bootstrap_interval(ours, seed=1) == pytest.approx(tuple(single), abs=0.004)


def test_the_same_seed_draws_the_same_rows() -> None:
    rng = np.random.default_rng(2)
    ours, theirs = rng.random(80), rng.random(80)
    assert paired_bootstrap(ours, theirs, seed=3) == paired_bootstrap(ours, theirs, seed=3)
    assert paired_bootstrap(ours, theirs, seed=3) != paired_bootstrap(ours, theirs, seed=4)


def test_many_rows_are_resampled_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = np.random.default_rng(2).random(50)
    whole = bootstrap_interval(ours, seed=1, resamples=1003)
    monkeypatch.setattr("slmops.evaluate.significance._CHUNK_CELLS", 50 * 100)
    assert bootstrap_interval(ours, seed=1, resamples=1003) == whole


def test_a_model_does_not_differ_from_itself() -> None:
    table = counts(np.random.default_rng(1), 60, 0.8)
    difference = paired_bootstrap(table, table, micro_f1, seed=1)
    assert difference == (0, (0, 0), 1)
    assert ratio_interval(table, table, micro_f1, seed=1) == (1, 1)


def test_pairing_sees_what_two_intervals_cannot() -> None:
    hard = np.random.default_rng(1).normal(size=400)
    ours, theirs = hard + 0.05, hard
    assert bootstrap_interval(ours, seed=1).low < theirs.mean()
    assert paired_bootstrap(ours, theirs, seed=1).interval.low > 0.04


def test_where_the_teacher_has_nothing_nothing_is_kept() -> None:
    assert ratio_interval([0, 1, 1], [0, 0, 0], seed=1) is None
    assert ratio_interval([[1, 0, 0]], [[0, 1, 1]], micro_f1, seed=1) is None
    assert ratio_interval([1, 0, 0, 0], [1, 0, 0, 0], seed=1) is None  # a third of the resamples hold no success
    assert ratio_interval([1] * 9 + [0], [1] * 9 + [0], seed=1) == (1, 1)


@pytest.mark.parametrize("test", [paired_bootstrap, ratio_interval])
def test_figures_must_be_of_the_same_rows(test: Callable[..., Any]) -> None:
    with pytest.raises(BadInput, match="there are 3 and 2"):
        test([1, 0, 1], [1, 0], seed=1)
    with pytest.raises(BadInput, match="no rows"):
        test([], [], seed=1)


def population(rng: np.random.Generator) -> tuple[Array, Array]:
    """Two models' counts on 20,000 rows, with rows that are hard for both."""
    skill = rng.beta(4, 1.5, 20_000)
    fields = rng.integers(0, 5, len(skill))
    sides = []
    for factor in (0.95, 0.85):
        hits = rng.binomial(fields, skill * factor)
        sides.append(np.column_stack([hits, rng.poisson(0.2, len(skill)), fields - hits]).astype(float))
    return sides[0], sides[1]


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(11)
    ours, theirs = population(rng)
    f1 = [float(micro_f1(side.mean(axis=0, keepdims=True))[0]) for side in (ours, theirs)]
    held = {"difference of F1": 0, "ratio of F1": 0, "difference of exact match": 0}
    exact = [(side[:, 1:].sum(axis=1) == 0).astype(float) for side in (ours, theirs)]
    trials = 250
    for trial in range(trials):
        rows = rng.integers(0, len(ours), 150)
        difference = paired_bootstrap(ours[rows], theirs[rows], micro_f1, seed=trial, resamples=600).interval
        held["difference of F1"] += difference.low <= f1[0] - f1[1] <= difference.high
        ratio = ratio_interval(theirs[rows], ours[rows], micro_f1, seed=trial, resamples=600)
        assert ratio is not None
        held["ratio of F1"] += ratio.low <= f1[1] / f1[0] <= ratio.high
        match = paired_bootstrap(exact[0][rows], exact[1][rows], mean, seed=trial, resamples=600).interval
        held["difference of exact match"] += match.low <= exact[0].mean() - exact[1].mean() <= match.high
    for figure, hits in held.items():
        assert 0.91 <= hits / trials <= 0.98, f"{figure}: {hits / trials:.3f}, not 0.95"


def test_equal_models_rarely_seem_to_differ() -> None:
    rng = np.random.default_rng(3)
    p_values = []
    for trial in range(300):
        shared, ours, theirs = rng.random((3, 100)) < 0.5
        p_values.append(
            (paired_bootstrap(shared | ours, shared | theirs, seed=trial, resamples=500).p_value,
             mcnemar(shared | ours, shared | theirs))
        )  # fmt: skip
    bootstrap, exact = (np.array(p_values) < 0.05).mean(axis=0)
    assert 0.02 <= bootstrap <= 0.09
    assert exact <= 0.06  # the exact test is conservative


def test_rows_needed_are_those_that_find_the_difference() -> None:
    """Power by simulation; McNemar's normal form, which the formula is for."""
    rng = np.random.default_rng(4)
    for discordant, apart in ((0.3, 0.1), (0.2, 0.03)):
        rows = rows_needed(discordant, apart)
        shares = [(discordant + apart) / 2, (discordant - apart) / 2, 1 - discordant]
        alone = rng.multinomial(rows, shares, size=20_000)
        z = np.abs(alone[:, 0] - alone[:, 1]) / np.sqrt(np.maximum(alone[:, 0] + alone[:, 1], 1))
        assert (z > stats.norm.ppf(0.975)).mean() == pytest.approx(0.8, abs=0.02)


def test_one_point_needs_thousands_of_rows() -> None:
    assert rows_needed(0.1) == 7847
    assert rows_needed(0.1, power=0.9) > rows_needed(0.1) > rows_needed(0.1, 0.02)
    with pytest.raises(BadInput, match="cannot come from"):
        rows_needed(0.005)


def test_holm_gives_the_published_values() -> None:
    """The example of R's `p.adjust(c(0.01, 0.02, 0.03, 0.04), "holm")`, and ties."""
    assert holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.5, 0.9]) == [1, 1, 1]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_makes_nothing_smaller_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= after <= 1 for p, after in zip(p_values, adjusted, strict=True))
    assert [after for _, after in sorted(zip(p_values, adjusted, strict=True))] == sorted(adjusted)


def test_figures_drawn_together_are_those_drawn_alone() -> None:
    rng = np.random.default_rng(8)
    tables = [counts(rng, 70, skill) for skill in (0.9, 0.6)]
    sparse = np.zeros((70, 60))
    sparse[np.arange(70), rng.integers(0, 60, 70)] = 1
    together = draw([(tables[0], micro_f1), (tables[1], micro_f1), (sparse, mean)], seed=5, resamples=500)
    for one, table in zip(together, tables, strict=False):
        (alone,) = draw([(table, micro_f1)], seed=5, resamples=500)
        assert one.value == alone.value
        assert one.resampled == pytest.approx(alone.resampled)
    (alone,) = draw([(sparse, mean)], seed=5, resamples=500)
    assert together[2].resampled == pytest.approx(alone.resampled)


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 6), min_size=1, max_size=15), st.integers(0, 5))
def test_an_interval_holds_the_figure_itself(rows: list[tuple[int, ...]], seed: int) -> None:
    for figure in (macro_f1, micro_f1):
        table = np.array(rows, dtype=float)[:, : 6 if figure is macro_f1 else 3]
        (drawn,) = draw([(table, figure)], seed=seed, resamples=200)
        low, high = interval(drawn)
        if np.isnan(drawn.value):
            assert np.isnan(low)
        else:
            assert 0 <= low <= drawn.value <= high <= 1


def test_resamples_that_say_nothing_do_not_count() -> None:
    """One row in ten has a field; a resample without any has no F1, and must not count as one of 0."""
    table = np.zeros((10, 3))
    table[0, 0] = 1
    (drawn,) = draw([(table, micro_f1)], seed=1)
    assert np.isnan(drawn.resampled).mean() == pytest.approx(0.9**10, abs=0.02)
    assert interval(drawn) == (1, 1)
    assert ratio(drawn, drawn) == (1, 1)
    assert difference(drawn, drawn) == (0, (0, 0), 1)


def test_rows_needed_for_a_spread_are_those_that_find_the_difference() -> None:
    rng = np.random.default_rng(4)
    rows = rows_needed_for_spread(0.4, 0.1)
    apart = rng.normal(0.1, 0.4, (10_000, rows))
    z = np.abs(apart.mean(axis=1)) / (0.4 / np.sqrt(rows))
    assert (z > stats.norm.ppf(0.975)).mean() == pytest.approx(0.8, abs=0.02)
    with pytest.raises(BadInput, match="needs no test"):
        rows_needed_for_spread(0)


def test_the_spread_of_one_row_follows_from_the_resamples() -> None:
    rng = np.random.default_rng(6)
    ours, theirs = rng.random((2, 500))
    drawn = draw([(ours, mean), (theirs, mean)], seed=1)
    assert spread(*drawn, 500) == pytest.approx((ours - theirs).std(), rel=0.03)
    # Both formulas agree where one point is lost or won alone.
    assert rows_needed_for_spread(0.1**0.5) == pytest.approx(rows_needed(0.1), rel=0.01)
