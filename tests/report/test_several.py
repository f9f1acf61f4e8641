"""The report of several adapters: one table of all tasks and models, and what the tests and gates say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slmops.pipeline.stage import Context
from slmops.report.several import Several, page, table
from slmops.report.stage_several import ReportSeveral, ReportSeveralSettings
from tests.report.test_stage import TRAINING, write


def evidence(own: float, **models: float) -> dict[str, Any]:
    """Of one task: the adapter beside others, every difference beyond chance."""
    every = {"base": 0.2, "student": own, "floor": 0.3, **models}
    told = {
        role: {"quality": {"accuracy": value}, "interval": {"accuracy": [value - 0.05, value + 0.05]}}
        for role, value in every.items()
    }
    paired = [
        {
            **{"ours": "student", "theirs": role, "figure": "accuracy", "points": (own - value) * 100},
            **{"interval": [(own - value) * 100 - 5, (own - value) * 100 + 5]},
            **{"p": 0.001, "p_adjusted": 0.002, "test": "mcnemar", "rows_for_one_point": 900},
        }
        for role, value in every.items()
        if role != "student"
    ]
    return {"headline": "accuracy", "n_test": 400, "floor_beaten": own > 0.3, "models": told, "paired": paired}


GATE = {"figure": "accuracy", "state": "fail", "message": "accuracy: 0.6 is below 0.7", "value": 0.6, "wanted": "≥ 0.7"}
MERGE = {"method": "ties", "weights": {"late": 1.0, "short": 0.5}, "density": 0.5, "rank": 4, "adapter_bytes": 9000}


@pytest.fixture
def several() -> Several:
    return Several(
        name="helpers",
        base="smol",
        evidence={
            "late": evidence(0.9, **{"merged:ties": 0.7}),
            "short": evidence(0.6, **{"merged:ties": 0.65, "merged:<b>": 0.5}),
        },
        gates={"short": [GATE]},
        merges={"ties": MERGE, "<b>": {**MERGE, "density": None}},
        trainings={"late": TRAINING, "short": TRAINING},
        recipe={"name": "helpers", "seed": 7},
    )


def test_the_table_has_a_row_per_task_and_a_column_per_model(several):
    lines = table(several).splitlines()
    assert lines[0].split() == ["base", "adapter", "ties", "<b>"]
    late = lines.index("late, n = 400")
    assert lines[late + 1].split() == ["accuracy", "0.200", "0.900", "0.700", "–"]
    assert lines[late + 2].split()[3:] == ["0.15–0.25", "0.85–0.95", "0.65–0.75", "–"]
    assert max(map(len, lines)) <= 80
    text = " ".join(line.strip() for line in lines)
    assert "late: adapter against base: +70.0 points of accuracy [+65.0 to +75.0], p\u00a0=\u00a00.002: better" in text
    assert "late: ties against adapter: −20.0 points of accuracy [−25.0 to −15.0], p\u00a0=\u00a00.002: worse" in text
    assert "short: gate fail: accuracy: 0.6 is below 0.7" in text
    assert "ties: shown to be worse than the adapter by itself on 1 of 2 tasks" in text
    assert lines[-1] == "2 of 2 adapters are shown to be better than the base"


def test_the_page_shows_the_same_and_escapes_names(several):
    html = page(several)
    assert "<h1>2 of 2 adapters are shown to be better than the base</h1>" in html
    assert "1 of 1 gates missed" in html
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert "late × 1.0, short × 0.5" in html
    assert html.count("0.900") == 1
    assert "trained weights" in html


def test_an_adapter_that_nobody_needs_is_named():
    reasons = Several(name="helpers", base="smol", evidence={"late": evidence(0.9), "idle": evidence(0.25)}).reasons
    assert reasons == ["idle: the adapter is not shown to be better than a trivial method."]


def test_without_a_base_and_merges_there_is_nothing_to_hold_an_adapter_against(several):
    alone = {name: {**one, "models": {"student": one["models"]["student"]}, "paired": []}
             for name, one in several.evidence.items()}  # fmt: skip
    bare = Several(name="helpers", base="smol", evidence=alone)
    assert bare.title == "2 adapters on one base"
    assert "Paired tests" not in page(bare)
    assert table(bare).splitlines()[3].split() == ["accuracy", "–", "0.900"]


def test_the_stage_takes_the_comparison_with_what_was_merged(several, tmp_path: Path):
    inputs = {"merge:ties": write(tmp_path / "ties", merge=MERGE)}
    for name in ("late", "short"):
        inputs[f"adapter:{name}"] = write(tmp_path / f"adapter-{name}", history=[], training=TRAINING)
        inputs[f"evaluate:{name}"] = write(tmp_path / f"own-{name}", evidence=evidence(0.5), gates=[GATE])
    inputs["merged:late"] = write(tmp_path / "merged", evidence=several.evidence["late"])
    alike = {"figure": "parity_agreement", "state": "pass", "adapter": "late", "message": "late: 99 % of the words"}
    inputs["parity"] = write(tmp_path / "parity", gates=[alike])
    recipe = {"name": "helpers", "seed": 7, "student": {"model": "smol"}, "adapters": {"late": {}, "short": {}}}
    out = tmp_path / "out"
    out.mkdir()
    ReportSeveral().run(inputs, ReportSeveralSettings(recipe=recipe), Context(out=out, work=tmp_path, seed=1))
    record = json.loads((out / "report.json").read_text())
    assert "merged:ties" in record["adapters"]["late"]["evidence"]["models"]
    assert record["adapters"]["short"]["gates"] == [GATE]
    assert record["merges"]["ties"]["density"] == 0.5
    assert "late, n = 400" in (out / "table.txt").read_text()
    assert "as shipped, pass: late: 99 % of the words" in (out / "table.txt").read_text()
    assert "alike in all 1 questions" in (out / "report.html").read_text()
