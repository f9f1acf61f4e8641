"""The table fits a terminal and says what the evidence says."""

from __future__ import annotations

import pytest

from slmops.report.table import CELL_WIDTH, LABEL_WIDTH, ROLES, table


@pytest.fixture
def lines(evidence, verdicts) -> list[str]:
    return table(evidence, verdicts).splitlines()


def cells(line: str) -> list[str]:
    """What stands in the columns of models."""
    body = line[LABEL_WIDTH:]
    return [body[start : start + CELL_WIDTH].strip() for start in range(0, len(body), CELL_WIDTH)]


def row(lines: list[str], label: str) -> list[str]:
    (line,) = (line for line in lines if line[:LABEL_WIDTH].strip() == label)
    return cells(line)


def test_no_line_is_wider_than_a_terminal(lines):
    assert max(map(len, lines)) <= 80


def test_columns_do_not_touch(lines):
    end = next(i for i, line in enumerate(lines) if not line)
    for line in (*lines[:2], *lines[3:end]):
        assert all(line[LABEL_WIDTH + i * CELL_WIDTH] == " " for i in range(len(ROLES))), line


def test_every_model_has_its_column(lines):
    assert cells(lines[0]) == ["teacher", "quantised", "baseline", "student", "shipped", "floor"]


def test_its_numbers_are_those_of_the_evidence(lines, evidence):
    models = [evidence["models"][role] for role in ROLES]
    assert row(lines, "exact match") == [f"{model['quality']['exact_match']:.3f}" for model in models]
    assert row(lines, "field f1") == ["0.888"] * 6
    assert row(lines, "95 % interval")[0] == "0.40–0.60"
    assert row(lines, "latency p50 ms") == ["1,234.6"] * 5 + ["–"]
    assert row(lines, "latency p95 ms") == ["2,345.7"] * 5 + ["–"]
    assert row(lines, "first token ms") == ["98.8"] * 5 + ["–"]
    assert row(lines, "tokens/s") == ["12,346"] * 5 + ["–"]
    assert row(lines, "weights MB") == ["538.1"] * 5 + ["–"]
    assert row(lines, "peak memory MB") == ["1,235"] * 5 + ["–"]
    assert row(lines, "parameters M") == ["134.5"] * 5 + ["–"]


def test_below_it_stands_what_was_kept_saved_and_tested(lines):
    text = "\n".join(lines)
    for said in (
        "n = 400 held-out rows",
        "exact match kept: 93.3% of the teacher's (95 % interval 90.1% to 96.8%)",
        "field f1 kept: 95.7% of the teacher's",
        "time saved against the teacher in PyTorch: 89.1%",
        "time saved against the quantised teacher, same engine: 65.4%",
        "weights saved: 95.2%",
        "memory saved: 76.5%",
        "same text as the student before quantising: 98.8%",
        "shipped against baseline: +6.2 points of exact match (p = 0.012)",
        "gate pass: exact_match_kept: 0.933 is within at least 0.92",
        "gate fail: time_saving_same_engine: 0.654 is 0.246 below 0.9",
        "gate not enough evidence: field_f1_kept: too little to compare with",
    ):
        assert said in text


def test_what_was_not_measured_is_left_out(evidence):
    evidence["models"] = {role: evidence["models"][role] for role in ("teacher", "shipped")}
    evidence |= {"kept": {"exact_match_kept": None}, "kept_interval": {"exact_match_kept": None}}
    evidence |= {"parity": None, "paired": [], "savings": {"weights_saving": 0.9}}
    text = table(evidence, [])
    assert cells(text.splitlines()[0]) == ["teacher", "shipped"]
    assert not any(word in text for word in ("kept", "None", "same text", "against", "gate"))


def test_figures_of_other_tasks_stand_in_it_too(evidence):
    for model in evidence["models"].values():
        model["quality"] = {"exact_match": 0.9, "accuracy": 0.9, "macro_f1": 0.8, "valid_label": 1.0}
    lines = table(evidence, []).splitlines()
    assert row(lines, "macro f1") == ["0.800"] * 6
    assert [line[:LABEL_WIDTH].strip() for line in lines[3:6]] == ["exact match", "95 % interval", "accuracy"]


def test_a_long_name_of_a_figure_does_not_push_the_columns(evidence):
    for model in evidence["models"].values():
        model["quality"]["category_of_the_message_accuracy"] = 0.5
    lines = table(evidence, []).splitlines()
    assert row(lines, "category of th…") == ["0.500"] * 6
