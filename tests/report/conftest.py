"""Evidence as the comparison writes it."""

from __future__ import annotations

from typing import Any

import pytest

QUALITY = {
    "exact_match": 0.8125,
    "intent_accuracy": 0.9425,
    "field_f1": 0.8876,
    "field_precision": 0.9,
    "field_recall": 0.8754,
    "valid_json": 0.9975,
    "valid_schema": 0.995,
}
COST = {
    "latency_p50_ms": 1234.56,
    "latency_p95_ms": 2345.67,
    "ttft_p50_ms": 98.76,
    "tokens_per_s": 12345.6,
    "weights_bytes": 538_090_408,
    "peak_rss_bytes": 1_234_567_890,
    "parameters": 134_515_008,
}
ROLES = ("teacher", "teacher_same", "baseline", "student", "shipped")


@pytest.fixture
def evidence() -> dict[str, Any]:
    """All roles, with figures as wide as they come; each role's exact match is its own."""
    models: dict[str, Any] = {
        role: {
            **COST,
            "quality": QUALITY | {"exact_match": 0.5 + i / 16},
            "interval": {"exact_match": [0.4 + i / 16, 0.6 + i / 16]},
        }
        for i, role in enumerate(ROLES)
    }
    models["floor"] = {
        "engine": "scikit-learn",
        "quality": QUALITY | {"exact_match": 0.25},
        "interval": {"exact_match": [0.2, 0.3]},
    }
    test = {"ours": "shipped", "figure": "exact_match", "points": 6.25, "interval": [1.5, 11.0], "p_adjusted": 0.0123}
    return {
        "n_test": 400,
        "headline": "exact_match",
        "machine": {"processor": "a processor", "system": "a system"},
        "models": models,
        "kept": {"exact_match_kept": 0.9333, "field_f1_kept": 0.9571},
        "kept_interval": {"exact_match_kept": [0.9012, 0.9678], "field_f1_kept": [0.9301, 0.9888]},
        "savings": {
            "time_saving_torch": 0.8912,
            "weights_saving": 0.9523,
            "memory_saving": 0.7654,
            "time_saving_same_engine": 0.6543,
        },
        "parity": 0.9875,
        "paired": [{**test, "theirs": rival} for rival in ("baseline", "floor")],
        "rows_for_one_point": 4321,
    }


@pytest.fixture
def verdicts() -> list[dict[str, Any]]:
    """One gate of each state."""
    longest = "time_saving_same_engine"
    return [
        {"figure": "exact_match_kept", "state": "pass", "message": "exact_match_kept: 0.933 is within at least 0.92"},
        {"figure": longest, "state": "fail", "message": f"{longest}: 0.654 is 0.246 below 0.9"},
        {
            "figure": "field_f1_kept",
            "state": "not enough evidence",
            "message": "field_f1_kept: too little to compare with",
        },
    ]
