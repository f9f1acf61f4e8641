"""A recipe that heals, through the real command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_project import Cli

pytestmark = pytest.mark.timeout(600)

HEAL = "student.heal={tokens: 6000, length: 32, learning_rate: 3.0e-3, batch_tokens: 512, precision: fp32}"
BRIEFLY = (
    "data.sample.test=8",
    "teachers.0.fit.epochs=20",
    "evaluate.gates={}",
    "evaluate.latency_requests=1",
    "evaluate.quantised_teacher=false",
    "train.epochs=1",
    "train.baseline_epochs=1",
)


def test_student_and_baseline_are_healed_and_the_report_and_the_card_say_so(cli: Cli) -> None:
    overrides = [word for setting in (HEAL, *BRIEFLY) for word in ("--set", setting)]
    run = cli.run("heal/.slmops", *overrides)
    folder = {name: Path(step["path"]) for name, step in run["steps"].items()}
    for role in ("student", "baseline"):
        healed = json.loads((folder[f"{role}:healed"] / "heal.json").read_text())
        assert healed == run["metrics"][f"{role}:healed"]
        assert healed["kl_after"] < healed["kl_before"]
        assert (folder[f"{role}:healed"] / "carve.json").read_text() == (
            folder[f"{role}:carved"] / "carve.json"
        ).read_text()
    record = json.loads((folder["report"] / "report.json").read_text())
    assert record["healed"] == run["metrics"]["student:healed"]
    for page in (folder["report"] / "report.html", folder["bundle"] / "MODEL_CARD.md"):
        assert "Before the task the cut model was healed" in page.read_text()


def test_a_text_that_is_too_short_ends_with_2_before_the_teacher_is_fitted(cli: Cli) -> None:
    (cli.folder / "short.txt").write_text("too short")
    process = cli.start("run", "recipe.yaml", "--home", "short/.slmops", "--set", "student.heal={text: short.txt}")
    done = cli.end(process, code=2)
    assert "it takes two blocks of 128" in done.stderr
    assert "give more text" in done.stderr
    runs = json.loads(cli("runs", "--json", "--home", "short/.slmops"))["runs"]
    assert [step["node"] for step in runs[0]["steps"] if step["state"] == "done"] == ["data", "base"]
