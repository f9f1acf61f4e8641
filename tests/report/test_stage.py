"""The stages, on the files that the stages before them write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slmops.data.read import write_jsonl
from slmops.errors import BadInput
from slmops.pipeline.stage import Context
from slmops.recipe.privacy import PrivacySettings
from slmops.report.stage import Card, CardSettings, Report, ReportSettings
from slmops.tasks import Classification

TASK = Classification(("late", "refund"), None, 8)
TRAINING = {
    "parameters": 1000,
    "trainable_parameters": 40,
    "estimated_memory_bytes": 9_000_000,
    "peak_memory_bytes": 9_500_000,
    "estimated_seconds": 3.0,
    "train_seconds": 4.0,
    "merge_agreement": 1.0,
}
ROWS = [{"id": f"r{i}", "input": f"message {i}", "output": "late"} for i in range(4)]


def write(folder: Path, **files: Any) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture
def inputs(story, evidence, verdicts, tmp_path) -> dict[str, Path]:
    made = {
        "data": write(tmp_path / "data", task=TASK.describe(), data=story.data),
        "evaluate": write(tmp_path / "evaluate", evidence=evidence, gates=verdicts, regression=[]),
        "student_carved": write(tmp_path / "carved", carve=story.carved),
        "bundle": write(tmp_path / "bundle", manifest=story.manifest),
        "student_healed": write(tmp_path / "healed", heal=story.healed),
        "student": write(tmp_path / "student", history=story.histories["student"], training=TRAINING),
        "curate": write(tmp_path / "curate", card=story.curated),
        "parity": write(tmp_path / "parity", parity=story.parity | {"gates": None}, gates=story.parity["gates"]),
        "bought": write(tmp_path / "bought", curve=story.bought),
        "front": write(tmp_path / "front", front=story.front),
        "score_shipped": write(tmp_path / "score-shipped"),
        "score_teacher": write(tmp_path / "score-teacher"),
        "score_teacher_same": write(tmp_path / "score-same"),
    }
    write_jsonl(made["data"] / "test.jsonl", ROWS)
    for role, answers in (("shipped", ["late", "refund", "late", "huh"]), ("teacher", ["late"] * 4)):
        texts = ({"id": row["id"], "text": text} for row, text in zip(ROWS, answers, strict=True))
        write_jsonl(made[f"score_{role}"] / "predictions.jsonl", texts)
    return made


def context(tmp_path: Path) -> Context:
    out = tmp_path / "out"
    out.mkdir()
    return Context(out=out, work=tmp_path / "work", seed=1)


def test_the_report_is_a_page_a_table_and_a_record(inputs, story, tmp_path):
    run = context(tmp_path)
    figures = Report().run(inputs, ReportSettings(recipe=story.recipe), run)
    assert {path.name for path in run.out.iterdir()} == {"report.html", "report.json", "table.txt"}
    html = (run.out / "report.html").read_text()
    assert figures == {"bytes": len(html.encode()), "verdict": "Do not ship: time saving same engine misses its gate"}
    for said in (
        "1,578 answers of the teacher and 204 labelled rows",
        "212,000 tokens in 1,600 requests, 1.25 USD",
        "400 of the pool’s 2,000 rows",
        "rows bought",
        "unparseable",
        "message 1",
        "huh",
        "int8 block 32",
        "Lost: the teacher is right",
    ):
        assert said in html
    assert "message 2" not in html, "a row that all answer rightly is no failure"


def test_the_record_holds_everything_for_machines(inputs, story, evidence, verdicts, tmp_path):
    run = context(tmp_path)
    Report().run(inputs, ReportSettings(recipe=story.recipe), run)
    record = json.loads((run.out / "report.json").read_text())
    assert record["format"] == 1
    assert record["verdict"]["state"] == "hold"
    assert record["verdict"]["subject"] == "shipped"
    assert record["evidence"] == evidence
    assert record["gates"] == verdicts
    assert record["data"] == story.data
    assert record["healed"] == story.healed
    assert record["parity"] == story.parity
    assert record["curated"] == story.curated
    assert record["bought"] == story.bought
    assert record["lineage"]["files"] == story.manifest["files"]
    assert record["lineage"]["inputs"] == story.manifest["lineage"]["inputs"]
    assert record["recipe"] == story.recipe
    assert [group["rows"] for group in record["examples"]] == [2, 0, 0]


def test_what_a_run_does_not_have_is_left_out(inputs, story, tmp_path):
    needed = {name: inputs[name] for name in ("data", "evaluate", "student_carved", "bundle")}
    run = context(tmp_path)
    Report().run(needed, ReportSettings(recipe=story.recipe), run)
    html = (run.out / "report.html").read_text()
    assert 'id="compression"' not in html
    assert 'id="curated"' not in html
    assert "Lost:" not in html
    assert "healed" not in html
    assert 'id="parity"' not in html
    assert "front" not in json.loads((run.out / "report.json").read_text())


def test_several_teachers_are_told_by_name_and_each_has_a_curve(inputs, story, tmp_path):
    (only,) = story.recipe["teachers"]
    recipe = {**story.recipe, "teachers": [only, only | {"name": "big", "model": "acme/Big"}]}
    both = {
        name: write(tmp_path / name, history=story.histories["student"], training=TRAINING)
        for name in ("teacher", "teacher_2")
    }
    run = context(tmp_path)
    Report().run({**inputs, **both}, ReportSettings(recipe=recipe), run)
    html = (run.out / "report.html").read_text()
    assert "2 teachers (smollm2, big); the teacher of every table is smollm2" in html
    assert list(json.loads((run.out / "report.json").read_text())["histories"]) == ["teacher", "teacher 2", "student"]
    assert "teacher 2: " in html


def test_the_card_is_written_before_the_bundle_is(inputs, story, tmp_path):
    run = context(tmp_path)
    before = {"healed": inputs["student_healed"]} | {name: inputs[name] for name in ("data", "evaluate")}
    Card().run(before, CardSettings(name="support", version="2.0.0", recipe=story.recipe), run)
    text = (run.out / "MODEL_CARD.md").read_text()
    assert "# support 2.0.0" in text
    assert "the cut model was healed" in text
    assert "Do not ship" in text


def test_rows_are_shown_without_what_is_private(inputs, story, tmp_path):
    again = {"id": "r1", "note": "from zora@canary.example", "input": "I am zora@canary.example", "wanted": "late"}
    again |= {"written": "zora@canary.example", "passed": False}
    (inputs["evaluate"] / "regression.json").write_text(json.dumps([again]))
    rows = [{**row, "input": f"{row['input']}, zora@canary.example"} for row in ROWS]
    write_jsonl(inputs["data"] / "test.jsonl", rows)
    Report().run(inputs, ReportSettings(recipe=story.recipe), context(tmp_path))
    written = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "out").glob("report.*"))
    assert "zora" not in written
    assert "I am [EMAIL_1]" in written
    assert "message 1, [EMAIL_1]" in written


def test_a_detector_that_is_not_installed_is_told_before_there_is_anything_to_report(story, monkeypatch):
    monkeypatch.setattr("slmops.privacy.presidio.find_spec", lambda _: None)
    ReportSettings(recipe=story.recipe).check_surroundings()
    with pytest.raises(BadInput, match="presidio-analyzer, which is not installed"):
        ReportSettings(recipe=story.recipe, privacy=PrivacySettings(detector="presidio")).check_surroundings()
