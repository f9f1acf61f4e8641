"""The table of an evaluation without a recipe."""

from __future__ import annotations

from slmops.evaluate.side_table import side_table


def evidence(names, **extra):
    model = {"quality": {"exact_match": 0.5, "macro_f1": 0.4}, "interval": {"exact_match": [0.4, 0.6]}}
    test = {"ours": names[-1], "theirs": names[0], "figure": "exact_match", "points": -12.5, "p_adjusted": 0.01}
    other = {**test, "figure": "macro_f1"}
    models = {name: dict(model) for name in names}
    models[names[0]] |= {"latency_p50_ms": 1234.5, "weights_bytes": 84e6}
    models["floor"] = {"engine": "scikit-learn", **model}
    return {"headline": "exact_match", "n_test": 40, "models": models, "paired": [test, other], **extra}


def test_every_model_has_a_column_and_no_line_is_too_long():
    text = side_table(evidence([f"a-model-with-a-long-name-{i}" for i in range(8)]))
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("exact match ") == 2 + 1, "two blocks of five, and the pair of the main figure alone"
    assert "0.40–0.60" in text
    assert "1,234.5" in text
    assert "84.0" in text


def test_what_is_partial_says_so():
    assert "n = 40 rows\n" in side_table(evidence(["a", "b"]))
    assert "n = 40 of 90 rows: partial" in side_table(evidence(["a", "b"], partial=True, n_rows=90))
    assert "b against a: -12.5 points of exact match (p = 0.01)" in side_table(evidence(["a", "b"]))
