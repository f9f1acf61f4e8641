"""Evidence as the comparison writes it: of everything that can be measured, and of next to nothing."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from slmops.report.failures import Example, Given, Group
from slmops.report.story import Story
from slmops.report.table import table

LABELS = (
    "order late", "order missing part", "refund", "exchange", "invoice", "cancel order", "change address",
    "payment failed", "product question", "discount", "complaint", "praise", "other",
)  # fmt: skip
MATCH = {"teacher": 0.871, "teacher_same": 0.858, "baseline": 0.742, "student": 0.846, "shipped": 0.833, "floor": 0.579}
LATENCY_MS = {"teacher": 1234.56, "teacher_same": 402.3, "baseline": 98.4, "student": 97.9, "shipped": 41.27}
WEIGHTS = {"teacher": 538_090_408, "teacher_same": 86_500_000, "baseline": 210_300_000, "student": 210_300_000}
N_TEST = 400


def _quality(match: float) -> dict[str, float]:
    return {
        "exact_match": match,
        "intent_accuracy": min(match + 0.09, 1),
        "field_f1": min(match + 0.06, 1),
        "field_precision": min(match + 0.07, 1),
        "field_recall": min(match + 0.05, 1),
        "valid_json": 0.9975,
        "valid_schema": 0.995,
    }


def _cost(role: str) -> dict[str, Any]:
    p50, weights = LATENCY_MS[role], WEIGHTS.get(role, 30_200_000)
    return {
        "engine": "onnxruntime-genai" if role in ("shipped", "teacher_same") else "transformers",
        "version": "1.2.3",
        "precision": "int4" if role in ("shipped", "teacher_same") else "fp32",
        "threads": 2,
        "parameters": 134_515_008 if role.startswith("teacher") else 52_575_000,
        "weights_bytes": weights,
        "load_s": weights / 4e8,
        "peak_rss_bytes": int(weights * 2.1 + 2e8),
        "latency_p50_ms": p50,
        "latency_p90_ms": p50 * 1.6,
        "latency_p95_ms": p50 * 1.9,
        "latency_p99_ms": p50 * 2.4,
        "ttft_p50_ms": p50 / 9,
        "tpot_p50_ms": p50 / 20,
        "tokens_per_s": 20_000 / p50,
        "tokens_per_answer": 21.4,
        "batched_rows_per_s": 4000 / p50,
        "batched_tokens_per_s": 80_000 / p50,
        "cpu_cores_used": 1.93,
        "latency_spread_ms": [p50 * 0.97, p50 * 1.04],
        "latency_by_length": [
            {
                "tokens_from": low,
                "tokens_to": low + 31,
                "requests": 40,
                "p50_ms": p50 * (0.7 + low / 120),
                "p95_ms": p50 * (0.9 + low / 70),
                "ttft_p50_ms": p50 / 12 * (1 + low / 30),
            }
            for low in (16, 48, 80, 112)
        ],
        "energy_j_per_request": p50 * 0.02,
        "energy_method": "estimated: processor time × 15 W per core",
        "usd_per_1000": p50 * 1e-5,
    }


def _classes(match: float) -> dict[str, Any]:
    chance = random.Random(3)
    width = len(LABELS)
    counts = [[0] * (width + 1) for _ in LABELS]
    for row, wanted in enumerate(counts):
        for _ in range(20 + chance.randrange(20)):
            given = (
                row
                if chance.random() < match + 0.06
                else chance.choice([(row + 1) % width, chance.randrange(width), width])
            )
            wanted[given] += 1
    classes = []
    for i, label in enumerate(LABELS):
        hits, support, given_rows = counts[i][i], sum(counts[i]), sum(row[i] for row in counts)
        precision, recall = hits / max(given_rows, 1), hits / support
        f1 = 2 * precision * recall / max(precision + recall, 1e-9)
        classes.append({"label": label, "support": support, "precision": precision, "recall": recall, "f1": f1})
    return {"classes": classes, "confusion": {"labels": list(LABELS), "counts": counts}}


def _calibration(match: float) -> dict[str, Any]:
    bins = [
        {"low": i / 10, "high": (i + 1) / 10, "rows": i * i, "confidence": i / 10 + 0.05, "accuracy": (i / 10) ** 1.3}
        for i in range(10)
    ]
    abstention = [
        {"coverage": c / 20, "accuracy": match + (1 - match) * (1 - c / 20) ** 0.7, "threshold": 1 - c / 20 * 0.6}
        for c in range(1, 21)
    ]
    return {"ece": 0.041, "bins": bins, "abstention": abstention}


def paired(models: dict[str, Any], figure: str = "exact_match") -> list[dict[str, Any]]:
    """A test of every two models whose p falls with the size of the difference."""
    tests = []
    for ours, theirs in combinations(models, 2):
        points = (models[ours]["quality"][figure] - models[theirs]["quality"][figure]) * 100
        p = min(1.0, 2.0 ** -abs(points) * 1.2)
        tests.append(
            {
                "ours": ours, "theirs": theirs, "figure": figure, "points": points,
                "interval": [points - 3.1, points + 3.1], "p": p / 4, "p_adjusted": p, "test": "mcnemar",
                "rows_for_one_point": 4321,
            }
        )  # fmt: skip
    return tests


@pytest.fixture
def evidence() -> dict[str, Any]:
    """All roles of a recipe's run, with every figure there is."""
    models: dict[str, Any] = {}
    for role, match in MATCH.items():
        cost = {"engine": "scikit-learn"} if role == "floor" else _cost(role)
        quality = _quality(match)
        interval = {name: [max(value - 0.035, 0), min(value + 0.031, 1)] for name, value in quality.items()}
        models[role] = {"quality": quality, "interval": interval, **_classes(match), **cost}
    for role in ("teacher", "shipped"):
        models[role]["calibration"] = _calibration(MATCH[role])
    return {
        "format": 2,
        "task": {"kind": "extraction", "instruction": None},
        "n_test": N_TEST,
        "machine": {"processor": "a processor", "system": "a system", "cores": 2, "memory_bytes": 25_000_000_000},
        "headline": "exact_match",
        "models": models,
        "kept": {"exact_match_kept": 0.9564, "field_f1_kept": 0.9571},
        "kept_interval": {"exact_match_kept": [0.9212, 0.9878], "field_f1_kept": [0.9301, 0.9888]},
        "savings": {
            "time_saving_torch": 0.9666,
            "weights_saving": 0.9439,
            "memory_saving": 0.7954,
            "time_saving_same_engine": 0.8974,
        },
        "same_text": 0.9875,
        "paired": paired(models),
        "floor_beaten": True,
        "rows_for_one_point": 4321,
    }


JUDGED = {
    "judge": "acme/judge", "where": "an endpoint", "mode": "pairwise", "against": "released", "rows": 50,
    "readable": 48, "unreadable": 2, "reliable": True, "why": None, "scale": 1.0,
    "figures": {"win_rate": 0.25, "loss_rate": 0.1875, "tie_rate": 0.5625},
    "interval": {"win_rate": [0.149, 0.388], "loss_rate": [0.102, 0.319], "tie_rate": [0.423, 0.693]},
    "agreement": {"how": "both orders", "share": 0.78, "rows": 36, "interval": [0.62, 0.88]},
    "first_chosen": 0.55,
}  # fmt: skip
"""What `slmops.evaluate.judge` says of answers compared in pairs."""


def parity_gate(figure: str, value: float | None, state: str = "pass") -> dict[str, Any]:
    said = {"wanted": "what was asked", "message": f"{figure}: said of it"}
    return {"figure": figure, "value": value, "min": None, "max": None, "state": state, **said}


PARITY = {
    "rows": 48, "labels": False, "source": "transformers, float32", "shipped": "onnxruntime-genai, int4", "faults": [],
    "measured": {
        "first_token_kl_nats": 0.0031, "token_kl_nats": 0.0412, "worst_kl_nats": 1.7, "agreement": 0.9731,
        "same_answers": 0.875, "figure": "exact_match", "drop": 0.02, "drop_interval": [-0.02, 0.08],
        "worst": [
            {"id": "row-9", "token_kl_nats": 0.21, "agreement": 0.75, "source": "refund", "shipped": "exchange <now>"}
        ],
    },
    "cut": None,
    "gates": [parity_gate("parity_prompts", None), parity_gate("parity_agreement", 0.9731)],
}  # fmt: skip
"""What `slmops.evaluate.parity` says of a bundle that passes, with its gates."""


@pytest.fixture
def minimal() -> dict[str, Any]:
    """Two models under names of the user's own, judged on one figure; nothing else was measured."""
    models = {
        name: {"quality": {"exact_match": value}, "interval": {"exact_match": [value - 0.1, value + 0.1]}}
        for name, value in (("ours-v2", 0.7), ("gpt", 0.71))
    }
    return {
        "format": 2,
        "task": {"kind": "qa"},
        "n_test": 60,
        "machine": {"processor": "a processor", "system": "a system"},
        "headline": "exact_match",
        "models": models,
        "kept": {},
        "kept_interval": {},
        "savings": {},
        "same_text": None,
        "paired": paired(models),
        "floor_beaten": None,
        "rows_for_one_point": None,
    }


def gate(figure: str, state: str, **more: Any) -> dict[str, Any]:
    blank = {"value": 0.956, "min": 0.92, "max": None, "message": f"{figure}: said of it"}
    return {"figure": figure, "state": state, **blank, **more}


@pytest.fixture
def passing() -> list[dict[str, Any]]:
    return [
        gate("exact_match_kept", "pass"),
        gate("field_f1_kept", "pass", value=0.957),
        gate("latency_p95_ms", "pass", value=78.4, min=None, max=120.0),
        gate("exact_match", "pass", value=0.833, min=-0.05, of="teacher"),
    ]


@pytest.fixture
def verdicts() -> list[dict[str, Any]]:
    """One gate of each state."""
    longest = "time_saving_same_engine"
    return [
        gate("exact_match_kept", "pass", message="exact_match_kept: 0.956 is within at least 0.92"),
        gate(longest, "fail", min=0.95, value=0.897, message=f"{longest}: 0.897 is 0.053 below 0.95"),
        gate(
            "field_f1_kept",
            "not enough evidence",
            value=None,
            message="field_f1_kept: too little to compare with",
        ),
    ]


MESSAGE = "hi, my order BL-48213 of 3 May still is not here!! can u send it to Rua do Ouro 7 instead? thx, Inês"
WANTED = '{"intent":"order late","order":"BL-48213","date":"3 May","name":"Inês"}'


def example(wrong: str) -> Example:
    given = (
        Given("teacher", "teacher", WANTED, 1.0, True),
        Given("shipped", "shipped", wrong, 0.0, False),
        Given("floor", "floor", '{"intent":"change address","order":"BL-48213"}', 0.0, False),
    )
    return Example("row-17", MESSAGE, WANTED, given)


BOUGHT: dict[str, Any] = {
    "by": "uncertainty",
    "figure": "exact_match",
    "validation_rows": 40,
    "pool": 2000,
    "unbought": 1600,
    "ended": "flat",
    "points": [
        {"round": 0, "asked": 200, "answers": 198, "value": 0.5},
        {"round": 1, "asked": 400, "answers": 396, "value": 0.625},
    ],
}


def history(start: float, terms: tuple[str, ...]) -> list[dict[str, float]]:
    return [
        {
            "step": s,
            "tokens": s * 4000,
            "seconds": s * 3.0,
            **{t: start * (1 + i) / (1 + s / 4) + 0.03 for i, t in enumerate(terms)},
        }
        for s in range(1, 40)
    ]


CANDIDATES = [
    {
        "name": f"int{bits} block {block}",
        "quality": 0.84 - 0.02 * k - 0.01 * j,
        "interval": [0.79 - 0.02 * k, 0.87 - 0.01 * k],
        "weights_bytes": int(9e7 / (1 + k) * (1 + j / 9)),
        "latency_p50_ms": 90.0 / (1 + k),
        "peak_rss_bytes": 4e8 / (1 + k),
        "drop": 0.4 * k,
        "drop_interval": [-0.5, 0.4 * k + 0.5] if j == 0 else None,
        "state": ("pass", "fail", "not enough evidence")[(k + j) % 3],
        "rows_enough": 1_234 if (k + j) % 3 == 2 else None,
        "front": j == 0,
        "shipped": (k, j) == (2, 0),
    }
    for k, bits in enumerate((8, 6, 4))
    for j, block in enumerate((32, 64))
]


@pytest.fixture
def story(evidence, passing) -> Story:
    """Every chapter of the report."""
    lost = example('{"intent":"change address","order":"BL-48213","date":"3 May","name":"Inês"}')
    return Story(
        name="support",
        evidence=evidence | {"judged": JUDGED},
        gates=passing,
        table=table(evidence, passing, PARITY),
        parity=PARITY,
        recipe={
            "name": "support",
            "seed": 11,
            "task": {"kind": "extraction", "schema": "ticket.schema.json", "label": "intent", "max_answer_tokens": 64},
            "teachers": [{"name": "smollm2", "kind": "transformers", "model": "acme/SmolLM2-135M"}],
            "compress": {"runtime": "onnxruntime-genai", "precision": "int4", "block_size": 64},
            "bundle": {"name": "support", "version": "1.0.0"},
        },
        data={
            "rows": {"train": 204, "validation": 36, "pool": 1600, "test": N_TEST},
            "dropped": {"pool: contaminated": 3, "pool: exact duplicate": 41},
            "labels": {
                "train": {label: 30 - 2 * i for i, label in enumerate(LABELS)},
                "test": dict.fromkeys(LABELS, 31),
            },
        },
        curated={
            "rows": {"train": 204, "validation": 36, "pool": 1600, "test": N_TEST, "learned": 1578},
            "labels": {label: {"train": 30 - 2 * i, "answers": 150 - 5 * i} for i, label in enumerate(LABELS)},
            "imbalance": 1.5,
            "agreement": {"mean": 0.93, "unanimous": 0.81},
            "cost": {"answer_tokens": 31_337, "requests": 1600, "bought_tokens": 212_000, "usd": 1.25},
            "characters": {"p5": 18.0, "p50": 31.0, "p95": 77.0},
            "dropped": [
                {
                    "stage": "teach",
                    "side": "pool",
                    "reason": "unparseable",
                    "rows": 22,
                    "examples": [
                        {"id": "p9", "input": "Where is it?", "text": "Well,", "detail": "not JSON", "like": None}
                    ],
                },
                {"stage": "data", "side": "pool", "reason": "contaminated", "rows": 3, "examples": []},
            ],
            "samples": [{"id": "p1", "input": "Where is order 4711?", "text": '{"intent":"order_late"}'}],
        },
        bought=BOUGHT,
        carved={
            "layers": [*range(9), 27, 28, 29],
            "tokens": list(range(2903)),
            "heads": [[0, 2]] * 12,
            "channels": [list(range(1024))] * 12,
            "before": {
                "layers": 30,
                "tokens": 49152,
                "heads": 3,
                "query_heads": 9,
                "channels": 1536,
                "parameters": 134515008,
            },
            "after": {
                "layers": 12,
                "tokens": 2903,
                "heads": 2,
                "query_heads": 6,
                "channels": 1024,
                "parameters": 30004416,
            },
        },
        healed={
            "train_tokens": 200_064, "train_seconds": 1234.5, "kl_before": 2.034, "kl_after": 1.1,
            "perplexity_before": 88.13, "perplexity_after": 30.9, "perplexity_uncut": 17.25,
        },
        histories={
            "teacher": history(2.2, ("text",)),
            "student": history(1.1, ("forward_kl", "text")),
            "baseline": history(3.0, ("text",)),
        },
        examples=[
            Group("Lost: the teacher is right, the shipped is wrong", 31, (lost, example("I am sorry, I cannot"))),
            Group("Hard: both are wrong", 36, (example(""),)),
            Group("Gained: the shipped is right, the teacher is wrong", 0, ()),
        ],
        regression=[
            {"id": "r1", "note": None, "input": MESSAGE, "wanted": WANTED, "written": WANTED, "passed": True},
            {"id": "r2", "note": "ticket 88", "input": MESSAGE, "wanted": WANTED, "written": "", "passed": False},
        ],
        front={
            "figure": "exact_match",
            "rows": 3_000,
            "student": 0.84,
            "ships": "int4 block 32",
            "proven": False,
            "candidates": CANDIDATES,
            "others": [
                {"name": "fp32", "state": "does not fit", "why": "it takes more than 64 MB of memory"},
                {"name": "int2", "state": "screened out", "why": "", "loss": 3.1},
            ],
        },
        manifest={
            "name": "support",
            "version": "1.0.0",
            "engine": "onnxruntime-genai",
            "lineage": {
                "seed": 11,
                "inputs": {"data": "1f" * 32, "model": "2e" * 32},
                "environment": {
                    "python": "3.11.9",
                    "platform": "a system",
                    "cpu": "a processor",
                    "cores": 2,
                    "versions": {"slmops": "0.1.0", "torch": "2.13.0"},
                },
            },
            "files": {
                "evidence.json": {"sha256": "cd" * 32, "size": 18_233},
                "model/model.onnx": {"sha256": "ab" * 32, "size": 30_200_000},
                "model/tokenizer.json": {"sha256": "ef" * 32, "size": 210_111},
            },
        },
        command="slmops run recipe.yaml",
    )  # fmt: skip


@pytest.fixture
def small_story(minimal) -> Story:
    """The chapters that cannot be missing."""
    return Story(name="two models", evidence=minimal)


@pytest.fixture
def held_story(story, verdicts) -> Story:
    """The same run, with gates that fail."""
    return replace(story, gates=verdicts)
