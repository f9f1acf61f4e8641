"""The table fits a terminal and says what the evidence says."""

from __future__ import annotations

import pytest

from slmops.report.table import CELL_WIDTH, LABEL_WIDTH, PER_BLOCK, table


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
    for line in lines[:end]:
        if "─" not in line:
            assert all(line[LABEL_WIDTH + i * CELL_WIDTH] == " " for i in range(PER_BLOCK)), line


def test_every_model_has_its_column(lines):
    assert cells(lines[0]) == ["teacher", "quantised", "baseline", "student", "shipped", "floor"]


def test_its_numbers_are_those_of_the_evidence(lines):
    assert row(lines, "exact match") == ["0.871", "0.858", "0.742", "0.846", "0.833", "0.579"]
    assert row(lines, "field F1")[0] == "0.931"
    assert row(lines, "95 % interval")[0] == "0.84–0.90"
    assert row(lines, "latency p50 ms") == ["1,235", "402", "98.4", "97.9", "41.3", "–"]
    assert row(lines, "latency p95 ms")[4:] == ["78.4", "–"]
    assert row(lines, "first token ms")[0] == "137"
    assert row(lines, "tokens/s")[0] == "16.2"
    assert row(lines, "weights MB")[:2] == ["538", "86.5"]
    assert row(lines, "peak memory MB")[0] == "1,330"
    assert row(lines, "parameters M")[0] == "135"


def test_below_it_stands_what_was_kept_saved_tested_and_asked(lines):
    text = " ".join(" ".join(lines).replace("\u00a0", " ").split())
    for said in (
        "n = 400 held-out rows",
        "exact match kept: 95.6 % of the teacher's [92.1 % to 98.8 %]",
        "field F1 kept: 95.7 % of the teacher's",
        "time saved against the teacher in PyTorch: 96.7 %",
        "time saved against the quantised teacher, same engine: 89.7 %",
        "weights saved: 94.4 %",
        "memory saved: 79.5 %",
        "same text as the student before quantising: 98.8 %",
        "shipped against baseline: +9.1 points of exact match [+6.0 to +12.2], p = 0.0022: better",
        "shipped against floor: +25.4 points of exact match [+22.3 to +28.5], p < 0.001: better",
        "gate pass: exact_match_kept: 0.956 is within at least 0.92",
        "gate fail: time_saving_same_engine: 0.897 is 0.053 below 0.95",
        "gate not enough evidence: field_f1_kept: too little to compare with",
    ):
        assert said in text, said


def test_the_last_line_is_the_verdict(lines):
    assert lines[-1] == "verdict: Do not ship: time saving same engine misses its gate"


def test_what_was_not_measured_is_left_out(minimal):
    text = table(minimal, [])
    assert cells(text.splitlines()[0]) == ["ours-v2", "gpt"]
    assert not any(word in text for word in ("kept", "None", "same text", "gate", "latency", "saved"))
    assert "gpt against ours-v2: +1.0 points of exact match" in text


def test_more_models_than_fit_stand_in_blocks(minimal):
    models = {f"a-model-with-a-long-name-{i}": minimal["models"]["gpt"] for i in range(PER_BLOCK + 2)}
    lines = table({**minimal, "models": models, "paired": []}, []).splitlines()
    assert max(map(len, lines)) <= 80
    heads = [line for line in lines if "a-model" in line and not line.startswith("verdict")]
    assert [len(cells(line)) for line in heads] == [PER_BLOCK, 2]


def test_what_every_model_keeps_of_the_first_is_said_with_its_name(minimal):
    more = {
        "kept": {"gpt": {"exact_match_kept": 1.014}},
        "kept_interval": {"gpt": {"exact_match_kept": [0.9, 1.1]}},
        "savings": {"gpt": {"time_saving": -0.5}},
        "same_text": {"gpt": 0.25},
    }
    text = table(minimal | more, []).replace("\u00a0", " ")
    assert "gpt, exact match kept: 101.4 % of ours-v2's [90.0 % to 110.0 %]" in text
    assert "gpt, time saved: −50.0 %" in text
    assert "gpt, same text as the reference: 25.0 %" in text


def test_figures_of_other_tasks_stand_in_it_too_the_headline_first(evidence):
    for model in evidence["models"].values():
        model["quality"] = {"accuracy": 0.9, "macro_f1": 0.8, "perplexity": 7.061}
        model["interval"] = {"macro_f1": [0.7, 0.85]}
    evidence |= {"headline": "macro_f1", "paired": []}
    for model in evidence["models"].values():
        model["interval"] |= {"accuracy": [0.8, 0.95], "perplexity": [6.9, 7.2]}
    lines = table(evidence, []).splitlines()
    assert row(lines, "perplexity") == ["7.06"] * 6
    assert [line[:LABEL_WIDTH].strip() for line in lines[3:6]] == ["macro F1", "95 % interval", "accuracy"]


def test_a_long_name_of_a_figure_does_not_push_the_columns(evidence):
    for model in evidence["models"].values():
        model["quality"]["category_of_the_message_accuracy"] = 0.5
        model["interval"]["category_of_the_message_accuracy"] = [0.4, 0.6]
    lines = table(evidence, []).splitlines()
    assert row(lines, "category of the …") == ["0.500"] * 6


def test_parity_is_one_line_and_each_gate_that_it_fails(evidence, story):
    gates = [gate | {"state": "fail"} for gate in story.parity["gates"]]
    lines = table(evidence, [], story.parity | {"gates": gates}).replace("\u00a0", " ").splitlines()
    assert "the bundle chooses 97.3 % of the student's tokens on 48 rows, 0.0412 nats apart" in lines
    assert lines[-3:-1] == [f"gate fail: {gate['message']}" for gate in gates]
    assert lines[-1] == "verdict: Do not ship: 2 gates fail"
    faulty = {**story.parity, "measured": None, "gates": gates[:1]}
    text = table(evidence, [], faulty)
    assert "the bundle chooses" not in text
    assert "Do not ship: parity prompts misses its gate" in text
