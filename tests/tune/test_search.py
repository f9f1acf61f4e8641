"""Searches that train a tiny model: to the recipe that is written back, over a kill, by two processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from slmops.errors import BadInput, SlmopsError
from slmops.pipeline.history import History
from slmops.recipe import load_recipe
from slmops.tune.search import tune

LONG = ("--set", "train.epochs=60", "--set", "train.checkpoint_seconds=0.01", "--trials", "2")
"""Trainings that take far longer than it takes to kill a process."""


def search(recipe: Path, *overrides: str, **settings: Any) -> dict[str, Any]:
    return tune(recipe, overrides, home=recipe.parent / "home", **settings)


def test_the_best_settings_are_written_back_and_hold(recipe: Path) -> None:
    found = search(recipe, "train.batch_tokens=300")
    assert [one["state"] for one in found["trials"]] == ["measured"] * 4
    assert found["written"]["number"] == 0
    assert found["written"]["values"] == {"train.learning_rate": 1e-6, "train.adapter.rank": 16}
    assert found["best"]["value"] == min(one["value"] for one in found["trials"]) < found["written"]["value"]

    best = recipe.with_name("recipe.best.yaml")
    text = best.read_text()
    assert f"# Written by `slmops tune`: trial {found['best']['number']}, loss" in text
    assert "# far too low" in text
    assert "# of lora" in text
    made = load_recipe(best)
    assert made.train.learning_rate == found["best"]["values"]["train.learning_rate"]
    assert made.train.batch_tokens == 300
    assert made.train.adapter.rank == found["best"]["values"]["train.adapter.rank"]
    # What it was found to be worth is a student that is there: a run uses it.
    history = History(recipe.parent / "home")
    assert {run.state for run in history.runs()} == {"done"}

    # Nothing is trained again, neither for the same search nor for more trials of it.
    again = search(recipe, "train.batch_tokens=300")
    assert again["trials"] == found["trials"]
    more = search(recipe, "train.batch_tokens=300", trials=5)
    assert more["trials"][:4] == found["trials"]
    assert len(more["trials"]) == 5

    page = Path(more["page"])
    assert json.loads((page.parent / "tune.json").read_text())["best"] == more["best"]
    html = page.read_text()
    assert "Better settings: trial" in html
    assert html.count("<svg") >= 2
    assert "train.adapter.rank" in html


def test_a_figure_of_the_task_is_searched_for_and_other_rows_make_another_search(recipe: Path) -> None:
    found = search(recipe, "tune.figure=null", trials=2)
    assert (found["figure"], found["maximise"], found["rows"]) == ("exact_match", True, 9)
    rows = recipe.with_name("train.jsonl")
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[2:]))
    assert search(recipe, "tune.figure=null", trials=2)["study"] != found["study"]


def test_a_trial_that_cannot_be_trained_is_told_and_the_search_goes_on(recipe: Path) -> None:
    space = "tune.space={train.freeze_layers: {choices: [0, 8, 9]}}"
    found = search(recipe, space, "tune.sampler=random", trials=3)
    failed = [one for one in found["trials"] if one["state"] == "failed"]
    assert failed
    assert all("layers" in one["why"] for one in failed)
    assert found["best"]["values"] == {"train.freeze_layers": 0}
    with pytest.raises(SlmopsError, match="layers"):
        search(recipe, space, "train.freeze_layers=9", trials=2)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["tune=null"], "has no `tune`"),
        (["tune.figure=rouge1"], "tune.figure: rouge1 is no figure of this task"),
        (["tune.space={train.baseline_epochs: {low: 1.0, high: 2.0}}"], "needs a teacher"),
        (["tune.space={train.baseline: {choices: [true, false]}}"], "train.baseline changes nothing of the student"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_work(recipe: Path, overrides: list[str], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        search(recipe, *overrides)
    assert not (recipe.parent / "home" / "store").exists()


def test_nothing_that_somebody_wrote_is_written_over(recipe: Path) -> None:
    recipe.with_name("recipe.best.yaml").write_text("name: mine\n")
    with pytest.raises(BadInput, match="was not written by `slmops tune`"):
        search(recipe)


def started(recipe: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "slmops.cli.main", "tune", recipe.name, "--home", "home", "--json", *arguments]
    return subprocess.Popen(command, cwd=recipe.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_search_that_is_killed_goes_on_where_it_was_in_two_processes(recipe: Path) -> None:
    killed = started(recipe, *LONG)
    while not list((recipe.parent / "home" / "work").glob("*/checkpoint-*[0-9]/state.json")):
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()

    again = started(recipe, *LONG, "--workers", "2")
    out, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    found = json.loads(out)
    assert sum(one["state"] == "measured" for one in found["trials"]) == len(found["trials"]) == 2
    # The trial that was cut off is told once, by the number that it was taken up as.
    assert found["written"]["number"] > 0
    assert load_recipe(recipe.with_name("recipe.best.yaml")).train.epochs == 60
    # It went on from its checkpoint: what remained was less than all.
    said = "\n".join([errors, *(log.read_text() for log in (recipe.parent / "home" / "tune").glob("*/worker-2.log"))])
    begun = {
        int(number): float(thousands)
        for number, thousands in re.findall(r"trial (\d+): train on \d+ rows: ([\d.]+)k tokens", said)
    }
    assert begun[found["written"]["number"]] < max(begun.values())
