"""A cell as a run of the pipeline, and the record that it leaves."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from _contract import machine, machine_with_gpu

from _headline.cells import Cell
from _headline.corpus import Corpus, Files, write
from _headline.records import COUNTS, Record, digits, encoded
from slmops import Recipe
from slmops.data.read import read_jsonl
from slmops.data.stage import HeldOut, HeldOutSettings
from slmops.evaluate.predictions import read_scored
from slmops.pipeline.plan import nodes_for
from slmops.pipeline.run import RunResult, plan_graph, run_graph
from slmops.pipeline.stage import Node
from slmops.progress import Progress
from slmops.tasks import from_description, metrics

MEASURED = ("latency_p50_ms", "weights_bytes", "peak_rss_bytes")
ON_VALIDATION = ("teacher", "student", "shipped")
SCORED, VALIDATED = "score:", "validation:"


@dataclass(frozen=True)
class Work:
    """A cell with its data and its graph.

    Attributes:
        corpus: of the cell's task.
        recipe: as the cell asks for it.
        nodes: of the run.
    """

    cell: Cell
    corpus: Corpus
    recipe: Recipe
    nodes: Sequence[Node]

    @classmethod
    def of(cls, cell: Cell, corpus: Corpus, folder: Path) -> Work:
        """The cell's data written below `folder`, and its graph.

        Raises:
            BadInput: the recipe does not know a setting of the cell, or the data are too few.
        """
        if cell.budget == "times":
            corpus, folder = corpus.brief(), folder / "times"
        files: Files = write(corpus, cell.setting, cell.seed, folder / f"{cell.task}-{cell.setting}-s{cell.seed}")
        recipe = Recipe.load(cell.recipe, [*files.overrides(), *cell.overrides()])
        return cls(cell, corpus, recipe, graph(recipe, cell))

    def missing(self, home: Path) -> list[str]:
        """Ids of the nodes whose artifacts are not in the store of `home`."""
        return [step.node for step in plan_graph(self.nodes, seed=self.recipe.seed, home=home) if not step.cached]

    def run(self, home: Path, progress: Progress) -> Record:
        """Make what is missing, and say what came out."""
        result = run_graph(
            self.nodes,
            name=self.recipe.name,
            resolved_recipe=self.recipe.resolved(),
            seed=self.recipe.seed,
            home=home,
            progress=progress,
        )
        return record(self.cell, self.corpus, result)


def graph(recipe: Recipe, cell: Cell) -> list[Node]:
    """The recipe's nodes up to what the cell asks for; models also answer the validation rows."""
    made = nodes_for(recipe)
    nodes = [*made, Node("validation", HeldOut, HeldOutSettings(side="validation"), inputs={"data": "data"})]
    for node in made:
        role = node.id.removeprefix(SCORED)
        if node.id.startswith(SCORED) and role in ON_VALIDATION:
            # Time was taken on the test rows; here answers alone are wanted.
            settings = node.settings.model_copy(update={"latency_requests": 1})
            on_validation = replace(
                node, id=VALIDATED + role, settings=settings, inputs={**node.inputs, "data": "validation"}
            )
            nodes.append(on_validation)
    return needed(nodes, asked_for(cell))


def asked_for(cell: Cell) -> set[str]:
    """The last nodes of a cell's graph. A way to fit the teacher is chosen on validation alone."""
    teacher = f"{VALIDATED}teacher"
    if cell.student is None:
        return {teacher}
    if cell.precision is None:
        scored = (SCORED + role for role in ("teacher", "baseline", "student", "floor"))
        return {teacher, f"{VALIDATED}student", *scored}
    return {teacher, f"{VALIDATED}shipped", "evaluate"}


def needed(nodes: Sequence[Node], wanted: set[str]) -> list[Node]:
    """The nodes `wanted` and those that they take from, in order."""
    by_id = {node.id: node for node in nodes}
    found: set[str] = set()
    waiting = list(wanted)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += by_id[name].inputs.values()
    return [node for node in nodes if node.id in found]


def record(cell: Cell, corpus: Corpus, result: RunResult) -> Record:
    """The record of a run; see `Record`."""
    made = {name: step.path for name, step in result.artifacts.items()}
    test, validation = (_judged(made, data, prefix) for data, prefix in (("data", SCORED), ("validation", VALIDATED)))
    found: dict[str, Any] = {
        "cell": cell.name,
        "rung": cell.rung,
        "asked": cell.asked(),
        "machine": machine_with_gpu() if cell.budget == "gpu" else machine(),
        "commit": commit(),
        "rows": json.loads((made["data"] / "data.json").read_text(encoding="utf-8"))["rows"],
        "left_out": dict(corpus.left_out),
        "validation": {role: one["figures"] for role, one in validation.items()},
        "test": {role: one["figures"] for role, one in test.items()},
    }
    parts = {"validation": validation, "test": test}
    for kind in ("each", "counts"):
        found[kind] = {part: {role: one[kind] for role, one in roles.items()} for part, roles in parts.items()}
    found |= {"measured": {}, "savings": {}, "kept_layers": cell.student.layers if cell.student else None}
    if cell.precision and cell.student:
        evidence = json.loads((made["evaluate"] / "evidence.json").read_text(encoding="utf-8"))
        models = evidence["models"].items()
        found["measured"] = {role: {name: one[name] for name in MEASURED if name in one} for role, one in models}
        found["savings"] = evidence["savings"]
        if cell.budget == "gpu":
            found["measured"] = {role: _size(measured) for role, measured in found["measured"].items()}
            found["savings"] = _size(found["savings"])
    steps = result.artifacts.items()
    found["stage_s"] = {name: round(step.seconds, 1) for name, step in steps}
    found["train_s"] = {name: step.metrics["train_seconds"] for name, step in steps if "train_seconds" in step.metrics}
    return found


def _judged(made: Mapping[str, Path], data: str, prefix: str) -> dict[str, dict[str, Any]]:
    """Of every model that answered the rows of the artifact `data`: its figures, and what they are made of."""
    task = from_description(json.loads((made[data] / "task.json").read_text(encoding="utf-8")))
    rows, (headline, *_) = read_jsonl(made[data] / "test.jsonl"), task.figures()
    found = {}
    for name, folder in made.items():
        if not name.startswith(prefix):
            continue
        judged = read_scored(task, rows, folder).judged
        if judged:
            figures = metrics(task, judged)
            found[name.removeprefix(prefix)] = {
                "figures": figures,
                "each": encoded(headline.of(headline.table(judged)).tolist()),
                "counts": [digits(row[column] for row in judged) for column in COUNTS if "field_f1" in figures],
            }
    return found


def _size(figures: Mapping[str, float]) -> dict[str, float]:
    """Without what other processes beside a cell make another."""
    return {name: value for name, value in figures.items() if name.startswith("weights_")}


def commit() -> str:
    """Of the code that ran, with a mark where files differ from it; `unknown` outside of a repository."""
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/src", ":/benchmarks/_headline")
    return (_git("rev-parse", "--short=12", "HEAD") or "unknown") + ("+changes" if changed else "")


def _git(*words: str) -> str:
    told = ["git", "-C", str(Path(__file__).parent), *words]
    return subprocess.run(told, capture_output=True, text=True, check=False).stdout.strip()
