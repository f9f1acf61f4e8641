"""What the teacher is worth in the demo: recipes/support.yaml from several seeds, on as many held-out rows as it takes.

A run of the demo has 160 test rows, which tell apart nothing less than some ten points. Here every seed makes its own
rows, labels and pool, as many as in the demo, and 1,000 test rows; models are trained anew. Nothing is timed and the
teacher itself is not asked about the test rows. Points are of exact match, over the rows of all seeds together, with a
paired bootstrap; the lowest and the highest seed stand beside them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from _contract import machine, machine_with_gpu, publish
from _headline.running import SCORED, needed

from slmops import Recipe
from slmops.console import screen
from slmops.data.read import read_jsonl
from slmops.evaluate.predictions import read_scored
from slmops.evaluate.significance import paired_bootstrap
from slmops.models.device import fastest_device
from slmops.pipeline.plan import nodes_for
from slmops.pipeline.run import run_graph
from slmops.tasks import task_of
from slmops.tasks.figures import Array

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "support.yaml"
SEEDS, ROWS = (11, 12, 13), 1000
ROLES = ("baseline", "student", "shipped", "floor")
PAIRS = (("student", "baseline"), ("shipped", "baseline"), ("student", "floor"), ("shipped", "floor"))
GOALS = {
    "student_over_baseline_points_low": 0.1,
    "shipped_over_baseline_points_low": 0.1,
    "shipped_over_floor_points_low": 0.1,
}
"""Clearly better means that the lower end is above nothing."""

# Three rows of each side to time, as the pipeline will have it, and the processor or GPU for all others.
COMMON = ("evaluate.latency_requests=3",)
# Float32, whatever the machine is faster in: the arithmetic that the demo has on a processor without bfloat16.
ON_GPU = ("teach.engine=transformers", "teachers.0.fit.precision=fp32", "train.precision=fp32")

Judged = Mapping[str, Array]
"""By role, right (1) or wrong (0) for each test row."""


def main() -> None:
    first, *_ = __doc__.splitlines()
    parser = argparse.ArgumentParser(description=first)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="of rows and training alike")
    parser.add_argument("--rows", type=int, default=ROWS, help="test rows of each seed")
    parser.add_argument("--home", type=Path, default=ROOT / ".slmops", help="folder of the store and the history")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    parser.add_argument("--quick", action="store_true", help="few rows and steps; the result is not kept")
    arguments = parser.parse_args()
    seeds, told = arguments.seeds, [*COMMON, f"data.sample.test={arguments.rows}", *arguments.set]
    gpu = fastest_device() == "cuda"
    if gpu:
        told += ON_GPU
    if arguments.quick:
        from demo import QUICK

        seeds, told = seeds[:1], [*told, *QUICK]
    found = [judged(seed, told, arguments.home) for seed in seeds]
    values, spread = figures(found)
    publish(
        "worth",
        values | {"seeds": len(seeds)},
        goals=GOALS,
        spread=spread,
        keep=not (arguments.quick or arguments.set or arguments.rows < ROWS or len(seeds) < len(SEEDS)),
        on=machine_with_gpu() if gpu else machine(),
    )


def judged(seed: int, overrides: Sequence[str], home: Path) -> Judged:
    """Train from one seed, and judge every model's answers to the test rows."""
    recipe = Recipe.load(RECIPE, [f"seed={seed}", *overrides])
    print(f"seed {seed} …", file=sys.stderr, flush=True)
    result = run_graph(
        needed(nodes_for(recipe), {SCORED + role for role in ROLES}),
        name=f"worth-{seed}",
        resolved_recipe=recipe.resolved(),
        seed=recipe.seed,
        home=home,
        progress=screen(),
    )
    made = {node: step.path for node, step in result.artifacts.items()}
    task, rows = task_of(made["data"]), read_jsonl(made["data"] / "test.jsonl")
    headline, *_ = task.figures()
    tables = {role: headline.table(read_scored(task, rows, made[SCORED + role]).judged) for role in ROLES}
    return {role: np.asarray(headline.of(table), dtype=np.float64) for role, table in tables.items()}


def figures(found: Sequence[Judged]) -> tuple[dict[str, float], dict[str, Sequence[float]]]:
    """Exact match of each role and the points between two, over the rows of all seeds; and their ends."""
    values: dict[str, float] = {"rows": float(sum(len(one["student"]) for one in found))}
    spread: dict[str, Sequence[float]] = {}
    for role in ROLES:
        each = [float(one[role].mean()) for one in found]
        values[f"exact_match_{role}"], spread[f"exact_match_{role}"] = _pooled(found, role).mean(), _ends(each)
    for ours, theirs in PAIRS:
        name = f"{ours}_over_{theirs}_points"
        tested = paired_bootstrap(_pooled(found, ours), _pooled(found, theirs), seed=0)
        low, high = (end * 100 for end in tested.interval)
        values |= {name: tested.value * 100, f"{name}_low": low, f"{name}_p": tested.p_value}
        each = [float((one[ours] - one[theirs]).mean() * 100) for one in found]
        spread |= {name: (low, high), f"{name}_seeds": _ends(each)}
        values[f"{name}_seeds"] = float(np.mean(each))
    return values, spread


def _pooled(found: Sequence[Judged], role: str) -> Array:
    return np.concatenate([one[role] for one in found])


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


if __name__ == "__main__":
    main()
