"""One recipe up to the test rows' answers, in a process of its own, so that its peak memory is its own.

Run as `_tune_ours.py WORK JOB`; the job is `JOB.json` in the folder WORK, and what was found goes to `JOB.found.json`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _headline.running import SCORED, needed

from slmops import Recipe
from slmops.console import screen
from slmops.data.read import read_jsonl
from slmops.evaluate.predictions import read_scored
from slmops.pipeline.plan import nodes_for
from slmops.pipeline.run import run_graph
from slmops.tasks import task_of


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """`training`: the figures of the step that trains; `columns` of the job's figure of each test row."""
    recipe, scored = Recipe.load(Path(job["recipe"]), job["overrides"]), f"{SCORED}{job['role']}"
    result = run_graph(
        needed(nodes_for(recipe), {scored}),
        name=recipe.name,
        resolved_recipe=recipe.resolved(),
        seed=recipe.seed,
        home=Path(job["home"]),
        progress=screen(),
    )
    made = {node: step.path for node, step in result.artifacts.items()}
    task, rows = task_of(made["data"]), read_jsonl(made["data"] / "test.jsonl")
    figure = next(figure for figure in task.figures() if figure.name == job["figure"])
    judged = read_scored(task, rows, made[scored]).judged
    training = result.artifacts["student"].metrics if "student" in made else {}
    return {"training": dict(training), "columns": figure.table(judged).tolist()}


def search(job: Mapping[str, Any]) -> dict[str, Any]:
    """What `slmops tune` found, and how the recipe as it is written and the best one do on the test rows."""
    from slmops.tune.search import tune

    found = tune(Path(job["recipe"]), job["overrides"], trials=job["trials"], home=Path(job["home"]), progress=screen())
    return {name: found[name] for name in ("trials", "best", "written", "importance", "rows", "recipe")}


if __name__ == "__main__":
    work, name = Path(sys.argv[1]), sys.argv[2]
    given = json.loads((work / f"{name}.json").read_text(encoding="utf-8"))
    done = {"run": run, "search": search}[given["job"]](given)
    (work / f"{name}.found.json").write_text(json.dumps(done), encoding="utf-8")
