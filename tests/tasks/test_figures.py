"""Figures from column means: the values of scikit-learn, for one set of rows and for many at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_score, recall_score

from slmops.errors import BadInput
from slmops.tasks.figures import (
    Figure,
    Statistic,
    macro_f1,
    mean,
    measured,
    micro_f1,
    perplexity,
    precision,
    recall,
    share,
)

COUNTS = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12)


def of(statistic: Statistic, table: list[tuple[float, ...]]) -> float:
    return float(statistic(np.array(table, dtype=float).mean(axis=0, keepdims=True))[0])


@given(COUNTS)
def test_counts_give_the_figures_of_scikit_learn(table: list[tuple[int, int, int]]) -> None:
    hits, invented, missed = (sum(column) for column in zip(*table, strict=True))
    wanted, given = [1] * hits + [0] * invented + [1] * missed, [1] * hits + [1] * invented + [0] * missed
    if not wanted:
        assert all(np.isnan(of(figure, table)) for figure in (micro_f1, precision, recall))
        return
    assert of(precision, table) == pytest.approx(precision_score(wanted, given, zero_division=0.0))
    assert of(recall, table) == pytest.approx(recall_score(wanted, given, zero_division=0.0))
    assert of(micro_f1, table) == pytest.approx(2 * hits / (2 * hits + invented + missed))


@pytest.mark.parametrize("statistic", [mean, micro_f1, precision, recall, macro_f1, perplexity])
def test_many_sets_of_rows_at_once_are_as_good_as_one_by_one(statistic: Statistic) -> None:
    means = np.random.default_rng(3).integers(0, 3, (50, 6)).astype(float)
    one_by_one = [statistic(row[None])[0] for row in means]
    assert statistic(means) == pytest.approx(one_by_one, nan_ok=True)


def test_classes_that_do_not_occur_do_not_count() -> None:
    # Three classes: F1 of 1, F1 of 0 (wanted, never given), and one that is neither wanted nor given.
    assert of(macro_f1, [(1, 0, 0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0, 1, 0)]) == 0.5
    assert np.isnan(of(macro_f1, [(0,) * 9]))


def test_perplexity_weighs_tokens_and_not_rows() -> None:
    assert of(perplexity, [(3.0, 1), (1.0, 3)]) == pytest.approx(np.exp(4 / 4))
    assert of(perplexity, [(8 * np.log(50), 8)]) == pytest.approx(50)


def test_a_column_that_a_row_lacks_is_zero_there_and_other_columns_do_not_disturb() -> None:
    figure = Figure("f", ("b", "a"))
    assert figure.table([{"a": 1.0, "c": 5.0}, {"b": 2.0}]).tolist() == [[0, 1], [2, 0]]
    assert figure.value([{"b": 2.0}, {}]) == 1


def test_what_no_row_speaks_to_is_left_out_and_the_order_is_kept() -> None:
    figures = [share("right"), Figure("f1", ("tp", "fp", "fn"), micro_f1), share("valid")]
    assert list(measured(figures, [{"right": 1.0, "valid": 0.0}]).items()) == [("right", 1.0), ("valid", 0.0)]
    with pytest.raises(BadInput, match="no rows") as error:
        measured(figures, [])
    assert error.value.hint
