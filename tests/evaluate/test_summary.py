"""The summary for a CI job: everything in it, and nothing that breaks its tables."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmops.evaluate.summary import MOST_ROWS, summary

relaxed = settings(deadline=None)
EVIDENCE: dict[str, Any] = {
    "n_test": 240,
    "models": {
        "teacher": {
            "quality": {"exact_match": 0.85},
            "interval": {"exact_match": [0.8, 0.9]},
            "latency_p50_ms": 200.0,
            "weights_bytes": 538_000_000,
        },
        "shipped": {"quality": {"exact_match": 0.8}, "latency_p50_ms": 20.25, "weights_bytes": 84_000_000},
        "floor": {"quality": {"exact_match": 0.1}},
    },
}


def gate(state: str, message: str = "exact_match: 0.800 is 0.120 below 0.92") -> dict[str, Any]:
    return {"figure": "exact_match", "wanted": "at least 0.92", "state": state, "message": message}


def row(passed: bool, **parts: str) -> dict[str, Any]:
    return {
        "id": "r-1",
        "input": "where?",
        "wanted": "late",
        "written": "refund",
        "note": None,
        "passed": passed,
    } | parts


def columns(line: str) -> int:
    return line.replace("\\|", "").count("|") - 1


def test_a_lead_reads_verdict_gates_and_models():
    text = summary(EVIDENCE, [gate("fail"), gate("not enough evidence", "exact_match: 12 rows; 30 are needed")])
    assert text.startswith("## ❌ Do not ship: 1 of 2 gates fail, 1 of 2 have not enough evidence\n")
    assert "| `exact_match` | at least 0.92 | ❌ fail | 0.800 is 0.120 below 0.92 |" in text
    assert "⚠️ not enough evidence | 12 rows; 30 are needed |" in text
    assert "|  | teacher | shipped | floor |" in text
    assert "| `exact_match` | 0.850 (0.800–0.900) | 0.800 | 0.100 |" in text
    assert "| latency p50 ms | 200.0 | 20.2 | – |" in text
    assert "| weights | 538.0 MB | 84.0 MB | – |" in text
    assert "`report.html`" in text


@pytest.mark.parametrize(
    ("verdicts", "head"), [([], "No gate was set"), ([gate("pass")] * 2, "✅ Every gate passes (2)")]
)
def test_the_head_says_how_it_stands(verdicts, head):
    assert summary(EVIDENCE, verdicts).startswith(f"## {head}\n")


def test_failing_regression_rows_are_shown_and_the_rest_counted():
    text = summary(EVIDENCE, [], [row(True), *[row(False)] * (MOST_ROWS + 2)])
    assert f"### Regression suite: 1 of {MOST_ROWS + 3} rows pass" in text
    assert text.count("| r-1 | where? | late | refund |  |") == MOST_ROWS
    assert "and 2 more in `regression.json`" in text


def test_what_a_judge_says_is_told_apart():
    judged = {
        "judge": "big", "against": "teacher", "rows": 10, "readable": 4, "reliable": False, "why": "6 cannot be read",
        "figures": {"win_rate": 0.5, "loss_rate": None}, "interval": {"win_rate": [0.2, 0.8], "loss_rate": None},
        "agreement": {"how": "both orders", "share": 0.75, "rows": 4, "interval": [0.3, 0.95]},
    }  # fmt: skip
    text = summary({**EVIDENCE, "judged": judged}, [])
    assert "### Judged by big: an opinion, not a measurement" in text
    assert "Not to be relied on: 6 cannot be read." in text
    assert "| `judged.win_rate` | 0.500 | 0.200 to 0.800 |" in text
    assert "| `judged.loss_rate` | – | – |" in text
    assert "| agrees with itself (both orders, n = 4) | 0.750 | 0.300 to 0.950 |" in text


@relaxed
@given(st.text(max_size=300))
def test_whatever_a_model_writes_stays_in_its_cell(written):
    nasty = "<script>x</script> | [a](http://b) `c`\n# d ![e](f)"
    text = summary(EVIDENCE, [], [row(False, written=written + nasty, input=nasty)])
    (line,) = [line for line in text.split("\n") if line.startswith("| r-1 |")]
    assert columns(line) == 5
    assert "<script" not in line.replace("\\<", "")
    assert "](" not in line.replace("\\]", "")
